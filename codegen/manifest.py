"""Manifest of an output folder: the files that ``sdk codegen`` generated there, kept in the folder.

Commit it with the code: only files that it lists are ever removed. It depends on the protos, the options and the
generated code alone, so that every machine with the same versions of the tools writes the same bytes. Data that only
speeds up the next run is in ``codegen.cache``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codegen import naming, relocate
from codegen.errors import CodegenError
from codegen.sources import Source, absolute
from sdk._error_text import os_reason

NAME = ".sdk-codegen.json"

# Format 1 also had a digest of the inputs, which changed with the sources of the tools.
_FORMAT = 2
_ABOUT = "Written by `sdk codegen`: the files that it made here. Keep it with them; do not edit."
# The top of a repository, else of a project.
_PROJECT = (".git", "pyproject.toml")
_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi", "_sdk.py")


@dataclass(frozen=True, slots=True)
class Entry:
    """Files that were generated from one proto file.

    Attributes:
        root: The folder that the proto's name is relative to; relative to the output folder if it is not absolute.
        files: Hash of the content of each file by its path below the output folder.
    """

    root: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files that ``sdk codegen`` generated in an output folder.

    Attributes:
        protos: The entry of each proto by its name.
        shared: Hash of each file that does not belong to a single proto: ``__init__.py``.
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
        """Return the content of the file, with one line for each proto, which version control merges best."""
        rows = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps({'root': entry.root, 'files': dict(sorted(entry.files.items()))})}"
            for name, entry in sorted(self.protos.items())
        )
        shared = json.dumps(dict(sorted(self.shared.items())))
        return (
            f'{{\n  "about": {json.dumps(_ABOUT)},\n  "format": {_FORMAT},\n'
            f'  "shared": {shared},\n  "protos": {{\n{rows}\n  }}\n}}\n'
        ).encode()

    def hashes(self, sources: Sequence[Source]) -> dict[str, str]:
        """Return the hash of every file of some protos, and of the shared files; empty if one proto is unknown."""
        if any(source.name not in self.protos for source in sources):
            return {}
        merged = dict(self.shared)
        for source in sources:
            merged |= self.protos[source.name].files
        return merged

    def others(self, sources: Sequence[Source], searched: Sequence[Path], out: Path) -> dict[str, Entry]:
        """Return the entries to keep of protos that this run does not compile: another run with this output may do so.

        An entry is dropped if its proto is gone: if the proto would be below a folder that this run searched, or if its
        root exists without it.

        Args:
            sources: The protos that are compiled.
            searched: The folders and files that were searched for protos.
            out: The output folder.
        """
        compiled = {source.name for source in sources}
        folders = [absolute(path) for path in searched]
        kept = {}
        for name, entry in self.protos.items():
            root = absolute(out / entry.root)
            proto = root / name
            is_searched = any(proto.is_relative_to(folder) for folder in folders)
            if name not in compiled and not is_searched and (proto.exists() or not root.exists()):
                kept[name] = entry
        return kept

    def updated(
        self, sources: Sequence[Source], others: Mapping[str, Entry], files: Mapping[str, str], out: Path
    ) -> Manifest:
        """Return the manifest after a run.

        Args:
            sources: The protos that were compiled.
            others: The result of ``others``.
            files: Hash of each file that was generated from the sources by its path below the output folder.
            out: The output folder.
        """
        owned = _owned(sources, files)
        project = _project(out)
        places = {source.name: (source.root, os.path.isabs(source.shown)) for source in sources}
        roots = {place: _stored_root(*place, out, project) for place in set(places.values())}
        protos = {name: Entry(roots[place], owned.pop(name, {})) for name, place in places.items()}
        protos |= others
        shared = dict(owned.pop("", {}))
        used = {os.path.dirname(path) for entry in protos.values() for path in entry.files}
        for path, known in self.shared.items():
            package = os.path.dirname(path)
            if any(folder == package or folder.startswith(f"{package}/" if package else "") for folder in used):
                shared.setdefault(path, known)
        return Manifest(protos, shared)


def digest(content: bytes) -> str:
    """Return the hash of a file's content in the form of the manifest."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def load(out: Path) -> Manifest:
    """Return the manifest of an output folder; an empty one if the folder has no manifest.

    Raises:
        CodegenError: The file can't be read.
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
        raise CodegenError(f"can't read {path}: {os_reason(error)}", exit_code=2) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CodegenError(
            f"{path} is damaged (a merge conflict?); take either side of the conflict or delete the file, then "
            "generate again",
            exit_code=2,
        ) from error


def _owned(sources: Sequence[Source], hashes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the files of each proto; under ``""`` those of no single proto."""
    stems = {source.name: naming.module(source.name) for source in sources}
    modules = relocate.importable_names(stems.values())
    by_path = {modules[stem].replace(".", "/") + suffix: name for name, stem in stems.items() for suffix in _SUFFIXES}
    owned: dict[str, dict[str, str]] = {}
    for path, hash_ in hashes.items():
        owned.setdefault(by_path.get(path, ""), {})[path] = hash_
    return owned


def _project(out: Path) -> Path | None:
    """Return the repository that an output folder is in, else its project; None if it is in neither."""
    folders = (absolute(out), *absolute(out).parents)
    return next((folder for mark in _PROJECT for folder in folders if (folder / mark).exists()), None)


def _stored_root(root: Path, is_given_absolute: bool, out: Path, project: Path | None) -> str:
    # The relative path from the output folder to `/usr/share/protos` depends on where the project is: such a root is
    # stored as it was given. A root that was given as a relative path, such as `../shared/protos`, is there on every
    # machine, and so is one inside the project.
    is_foreign = project is not None and not root.is_relative_to(project)
    if is_foreign and is_given_absolute:
        return root.as_posix()
    return Path(os.path.relpath(root, absolute(out))).as_posix()
