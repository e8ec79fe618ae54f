"""The list of files that the command made in an output folder, which it keeps there itself.

It belongs beside the code, in version control too: only files that it lists are ever removed. It depends on the protos,
the options and the generated code alone, so that every machine with the same versions of the tools writes the same
bytes. What only speeds up the next run is in ``codegen.cache``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codegen import naming
from codegen import relocate as packages
from codegen.errors import CodegenError
from codegen.sources import Source, absolute

NAME = ".sdk-codegen.json"

# Format 1 had a digest of the inputs too, which changed with the tools' own sources.
_FORMAT = 2
_ABOUT = "Written by `sdk codegen`: the files that it made here. Keep it with them; do not edit."
_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi", "_sdk.py")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one proto file was made into.

    Attributes:
        root: The folder that the proto's name is relative to, as seen from the output folder.
        files: Hash of the content of each file by its path below the output folder.
    """

    root: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the command made in an output folder.

    Attributes:
        protos: Each proto by its name.
        shared: Hash of each file that belongs to no single proto: ``__init__.py``.
    """

    protos: Mapping[str, Entry] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Hash of every file by its path below the output folder."""
        merged = dict(self.shared)
        for entry in self.protos.values():
            merged |= entry.files
        return merged

    def dump(self) -> bytes:
        """Return the text of the file, one line a proto, which version control merges best."""
        rows = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps({'root': entry.root, 'files': dict(sorted(entry.files.items()))})}"
            for name, entry in sorted(self.protos.items())
        )
        shared = json.dumps(dict(sorted(self.shared.items())))
        return (
            f'{{\n  "about": {json.dumps(_ABOUT)},\n  "format": {_FORMAT},\n'
            f'  "shared": {shared},\n  "protos": {{\n{rows}\n  }}\n}}\n'
        ).encode()

    def of(self, sources: Sequence[Source]) -> dict[str, str]:
        """Return the hash of every file that was made of protos, and of the shared ones; empty if one is unknown."""
        if any(source.name not in self.protos for source in sources):
            return {}
        merged = dict(self.shared)
        for source in sources:
            merged |= self.protos[source.name].files
        return merged

    def others(self, sources: Sequence[Source], searched: Sequence[Path], out: Path) -> dict[str, Entry]:
        """Return the entries of protos that are not compiled now and stay, since they may belong to another call.

        Not those whose proto file is gone: it would lie below a folder that was searched now, or its root is there and
        it is not.

        Args:
            sources: The protos that are compiled.
            searched: The folders, and files, that were searched for protos.
            out: The output folder.
        """
        compiled = {source.name for source in sources}
        folders = [absolute(path) for path in searched]
        stay = {}
        for name, entry in self.protos.items():
            root = absolute(out / entry.root)
            proto = root / name
            is_searched = any(proto.is_relative_to(folder) for folder in folders)
            if name not in compiled and not is_searched and (proto.exists() or not root.exists()):
                stay[name] = entry
        return stay

    def after(
        self, sources: Sequence[Source], others: Mapping[str, Entry], files: Mapping[str, str], out: Path
    ) -> Manifest:
        """Return what is to stand there when files were made.

        Args:
            sources: The protos that were compiled.
            others: What ``others`` returned.
            files: Hash of each file that was made of the sources by its path below the output folder.
            out: The output folder.
        """
        owned = _owned(sources, files)
        protos = {source.name: Entry(_relative(source.root, out), owned.pop(source.name, {})) for source in sources}
        protos |= others
        shared = dict(owned.pop("", {}))
        used = {os.path.dirname(path) for entry in protos.values() for path in entry.files}
        for path, known in self.shared.items():
            package = os.path.dirname(path)
            if any(folder == package or folder.startswith(f"{package}/" if package else "") for folder in used):
                shared.setdefault(path, known)
        return Manifest(protos, shared)


def digest(content: bytes) -> str:
    """Return the hash of a file's content, as the manifest has it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def load(out: Path) -> Manifest:
    """Return the manifest of an output folder; an empty one when it has none.

    Raises:
        CodegenError: It can't be read.
    """
    path = out / NAME
    try:
        read = json.loads(path.read_bytes())
        if read["format"] > _FORMAT:
            raise CodegenError(f"{path} was written by a newer version of sdk codegen; install that one", exit_code=2)
        protos = {name: Entry(entry["root"], entry["files"]) for name, entry in read["protos"].items()}
        return Manifest(protos, read["shared"])
    except (FileNotFoundError, NotADirectoryError):
        return Manifest()
    except OSError as error:
        raise CodegenError(f"can't read {path}: {error.strerror}", exit_code=2) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CodegenError(
            f"{path} is damaged (a merge conflict?); take either side of the conflict or delete the file, then "
            "generate again",
            exit_code=2,
        ) from error


def _owned(sources: Sequence[Source], hashes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the files of each proto; under ``""`` those that belong to none."""
    stems = {source.name: naming.module(source.name) for source in sources}
    homes = packages.homes(stems.values())
    by_path = {homes[stem].replace(".", "/") + suffix: name for name, stem in stems.items() for suffix in _SUFFIXES}
    owned: dict[str, dict[str, str]] = {}
    for path, hash_ in hashes.items():
        owned.setdefault(by_path.get(path, ""), {})[path] = hash_
    return owned


def _relative(root: Path, out: Path) -> str:
    return Path(os.path.relpath(root, absolute(out))).as_posix()
