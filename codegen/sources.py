"""Proto files to compile, with the name by which protoc and other protos know each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath

from codegen import naming
from codegen.errors import CodegenError
from sdk._error_text import os_reason

# protobuf has this module, so the output for a copy is not used; protoc aborts on a copy from before editions.
_DESCRIPTOR = "google/protobuf/descriptor.proto"

# Characters that end a string of Python, or have a meaning in one.
_UNQUOTED = frozenset("'\\") | {chr(code) for code in range(32)}


@dataclass(frozen=True, slots=True)
class Source:
    """One proto file to compile.

    Attributes:
        root: The folder that its name is relative to, absolute.
        name: Its path for protoc and ``import``, ``"acme/shop.proto"``.
        shown: Its path as the user gave it, for messages.
        descriptor: Its serialized descriptor, if a package has it in place of the file.
    """

    root: Path
    name: str
    shown: str
    descriptor: bytes = b""

    @property
    def path(self) -> str:
        """Its absolute path."""
        return f"{self.root}/{self.name}"

    def read(self) -> bytes:
        """Return the text of the file.

        Raises:
            CodegenError: It can't be read.
        """
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise CodegenError(f"can't read {self.shown}: {os_reason(error)}", exit_code=2) from error


def find(paths: Sequence[Path], includes: Sequence[Path] = (), exclude: Sequence[str] = ()) -> tuple[Source, ...]:
    """Return the proto files among files and below folders, sorted by name.

    The root of a proto is the first include folder that contains it, as for protoc. Otherwise, the root of a proto
    below a given folder is that folder, and the root of a given file is a given folder that contains it, else its own
    folder. Hidden folders and files, such as ``.venv``, and links to folders are skipped.

    Args:
        paths: Proto files, and folders of them.
        includes: Folders to look for imported protos in.
        exclude: Patterns of names to leave out, as in ``excluded``.

    Raises:
        CodegenError: A path does not exist or is not a proto file, two files have the same name or the same module,
            or no file was found.
    """
    for path in (*paths, *includes):
        if not os.path.exists(path):  # not Path.exists, which raises an error for a name that is too long
            raise CodegenError(f"{path} does not exist", exit_code=2)
    for include in includes:
        if not include.is_dir():
            raise CodegenError(f"-I {include} is not a folder", exit_code=2)
    roots = [absolute(include) for include in includes]
    folders = [absolute(path) for path in paths if path.is_dir()]
    found: dict[str, Source] = {}
    for path in paths:
        if path.is_dir():
            for folder, names in _below(path):
                place = absolute(folder)
                root = _root(place, roots) or absolute(path)
                below = place.relative_to(root)
                for name in names:
                    source = Source(root, _joined(below, name), _joined(folder, name))
                    found.setdefault(_joined(place, name), source)
        elif path.suffix == ".proto":
            place = absolute(path)
            root = _root(place, [*roots, *folders]) or place.parent
            found.setdefault(str(place), Source(root, place.relative_to(root).as_posix(), str(path)))
        else:
            raise CodegenError(f"{path} is not a .proto file", exit_code=2)
    where = ", ".join(map(str, paths))
    if not found:
        raise CodegenError(f"no .proto file found in {where}", exit_code=2)
    kept = sorted((each for each in found.values() if not excluded(each.name, exclude)), key=lambda each: each.name)
    if not kept:
        raise CodegenError(f"--exclude leaves out every .proto file in {where}", exit_code=2)
    kept = [each for each in kept if each.name != _DESCRIPTOR] or kept
    for one, other in pairwise(kept):
        if one.name == other.name:
            raise CodegenError(
                f"{one.shown} and {other.shown} are both {one.name} to protos that import them; exclude one, or give "
                "-I with a folder above both",
                exit_code=2,
            )
    _require_importable(kept)
    return tuple(kept)


def _require_importable(sources: Sequence[Source]) -> None:
    """Raise CodegenError if two protos generate one module, or one hides the folder of another from Python."""
    modules: dict[str, Source] = {}
    for source in sources:
        if any(char in source.name for char in _UNQUOTED):
            raise CodegenError(
                f"{source.shown} can't be compiled: protoc copies its name into strings of Python as it is; rename it "
                "without quotes, backslashes and control characters",
                exit_code=2,
            )
        first = modules.setdefault(naming.module(source.name), source)
        if first is not source:
            raise CodegenError(
                f"{first.shown} and {source.shown} both generate the module {naming.module(source.name)}_pb2; rename "
                "or exclude one",
                exit_code=2,
            )
    generated = {f"{module}_{suffix}": source for module, source in modules.items() for suffix in ("pb2", "sdk")}
    for module, source in modules.items():
        parents = module.split(".")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = ".".join(parents[:depth])
            if folder in generated:
                raise CodegenError(
                    f"{generated[folder].shown} generates the module {folder}, so that Python can't import the folder "
                    f"of {source.shown}; rename one of them",
                    exit_code=2,
                )


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a pattern matches a proto's name or a folder of it.

    Args:
        name: The proto's path below its root.
        patterns: Shell patterns; ``*`` matches any text, including slashes.

    Example:
        >>> excluded("acme/test/shop.proto", ["acme/test"]), excluded("acme/shop_test.proto", ["*_test.proto"])
        (True, True)
        >>> excluded("acme/shop.proto", ["shop.proto", "shop"])
        False
    """
    if not patterns:
        return False
    levels = [name, *map(str, PurePosixPath(name).parents)]
    return any(fnmatchcase(level, pattern.rstrip("/")) for pattern in patterns for level in levels[:-1])


def absolute(path: Path) -> Path:
    """Return a path without ``..`` and from the root. Links are kept: a name is relative to the folder as given."""
    return Path(os.path.abspath(path))


def _root(path: Path, folders: Sequence[Path]) -> Path | None:
    return next((folder for folder in folders if path.is_relative_to(folder)), None)


def _below(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with protos, and their names."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # Python can't import the module of a hidden one. Emacs links `.#shop.proto` to nothing while someone edits.
        if protos := [name for name in files if name.endswith(".proto") and not name.startswith(".")]:
            yield Path(parent), protos


def _joined(folder: PurePath, name: str) -> str:
    """Return the path of a file as pathlib writes it, in a tenth of its time: a tree may have thousands."""
    return name if not folder.parts else os.path.join(folder, name)
