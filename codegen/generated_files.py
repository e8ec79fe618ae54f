"""Generated files on their way from the generators to the output folder: on disk, since they may be many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

_NONE: Mapping[str, bytes] = MappingProxyType({})


class GeneratedFiles(Mapping[str, bytes]):
    """Content of files by path, sorted, in one file on disk. Each access reads it from there.

    Args:
        storage: The file. It is created, and the caller removes it.
    """

    def __init__(self, storage: Path) -> None:
        self._storage = storage.open("xb+", buffering=0)
        self._size = 0
        # Offset and length of each content.
        self._places: dict[str, tuple[int, int]] = {}

    def extend(self, files: Mapping[str, bytes]) -> None:
        """Add files. A path that exists gets the new content."""
        for path, content in files.items():
            self._places[path] = (self._size, len(content))
            self._size += len(content)
        self._storage.write(b"".join(files.values()))

    def close(self) -> None:
        """Close the file."""
        self._storage.close()

    def __getitem__(self, path: str) -> bytes:
        offset, length = self._places[path]
        return os.pread(self._storage.fileno(), length, offset)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)


class Selection(Mapping[str, bytes]):
    """Some of the files of a mapping, and others.

    Args:
        files: The mapping.
        paths: The paths to show, all of them in ``files``.
        more: Files that come last.
    """

    def __init__(self, files: Mapping[str, bytes], paths: Iterable[str], more: Mapping[str, bytes] = _NONE) -> None:
        self._owners = {**dict.fromkeys(paths, files), **dict.fromkeys(more, more)}

    def __getitem__(self, path: str) -> bytes:
        return self._owners[path][path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._owners)

    def __len__(self) -> int:
        return len(self._owners)
