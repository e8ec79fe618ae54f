"""Runs protoc with every plugin, and brings an output folder up to date with what comes out: all of it or nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codegen import naming, packages
from codegen.errors import CodegenError

# Each plugin with the Python that runs it. mypy-protobuf writes the .pyi files; `quiet` keeps it from listing them.
_PLUGINS: Mapping[str, str] = {
    "sdk": "from codegen.plugin import main; main()",
    "mypy": "from mypy_protobuf.main import main; main()",
    "mypy_grpc": "from mypy_protobuf.main import grpc; grpc()",
}
_NEEDS = {"grpc_tools": "grpcio-tools", "jinja2": "jinja2", "mypy_protobuf": "mypy-protobuf"}

# What stands before the message in a line of protoc's: `--sdk_out: protoc-gen-sdk: ` for an error of a plugin, and
# `W0000 00:00:1795352970.6 5693 parser.cc:659] ` for what its logger says.
_NOISE = re.compile(r"^(--\w+_out: (protoc-gen-\w+: )?|[IWEF]\d{4} \S+ +\d+ \S+\] )")
_LOGGER = "WARNING: All log messages before absl::InitializeLog()"


@dataclass(frozen=True, slots=True)
class Source:
    """One proto file to compile.

    Attributes:
        root: The folder that its name is relative to.
        name: Its path as protoc and ``import`` know it, ``"acme/shop.proto"``.
    """

    root: Path
    name: str


@dataclass(frozen=True, slots=True)
class Output:
    """What protoc and the plugins made.

    Attributes:
        files: Content of each file by its path below the output folder.
        obsolete: Paths that may hold code of an earlier version of the protos, which has no successor.
        warnings: What protoc had to say besides.
    """

    files: Mapping[str, bytes]
    obsolete: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """How an output folder differs from what it should hold. Paths are below the folder, sorted."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def stale(self) -> tuple[str, ...]:
        """Every path that is not up to date."""
        return tuple(sorted((*self.changed, *self.removed)))


def find(paths: Sequence[Path], includes: Sequence[Path]) -> tuple[Source, ...]:
    """Return the proto files among files and below folders.

    A folder is the root of what lies in it; hidden folders, such as ``.venv``, are left alone. The root of a file is
    the include folder that it lies in, else its own folder.

    Raises:
        CodegenError: A path does not exist, is no proto file, or there is no proto file at all.
    """
    found: dict[Path, Source] = {}
    folders = [path.resolve() for path in paths if path.is_dir()]
    for path in (*paths, *includes):
        if not path.exists():
            raise CodegenError(f"{path} does not exist", exit_code=2)
    for include in includes:
        if not include.is_dir():
            raise CodegenError(f"--include {include} is not a folder", exit_code=2)
    for path in paths:
        resolved = path.resolve()
        if path.is_dir():
            below = (proto.relative_to(resolved) for proto in sorted(resolved.rglob("*.proto")))
            roots = [resolved]
            protos = [resolved / proto for proto in below if not any(part.startswith(".") for part in proto.parts)]
        elif path.suffix == ".proto":
            roots, protos = [*folders, *(include.resolve() for include in includes)], [resolved]
        else:
            raise CodegenError(f"{path} is not a .proto file", exit_code=2)
        for proto in protos:
            root = next((root for root in roots if proto.is_relative_to(root)), proto.parent)
            found.setdefault(proto, Source(root, proto.relative_to(root).as_posix()))
    if not found:
        raise CodegenError(f"no .proto file found in {', '.join(map(str, paths))}", exit_code=2)
    return tuple(found.values())


def run(sources: Sequence[Source], includes: Sequence[Path], package: str = "") -> Output:
    """Run protoc on proto files and return what it made. Nothing is written but in a temporary folder.

    Raises:
        CodegenError: protoc or a plugin found something wrong; the text is theirs. Or the codegen extra is missing.
    """
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise CodegenError(f"{', '.join(missing)} not installed: pip install 'ray-grpc-sdk[codegen]'", exit_code=2)
    with tempfile.TemporaryDirectory(prefix="sdk-codegen-") as temporary:
        # protoc runs in an empty folder: `python -m` would import what lies in the user's.
        empty, out, scripts = (Path(temporary, name) for name in ("empty", "out", "plugins"))
        for folder in (empty, out, scripts):
            folder.mkdir()
        command = [sys.executable, "-m", "grpc_tools.protoc", *_arguments(sources, includes, out, scripts, package)]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, errors="replace", check=False)
        said = _messages(done.stderr)
        if done.returncode != 0:
            raise CodegenError("\n".join(said) or f"protoc failed with exit code {done.returncode}")
        made = {
            path.relative_to(out).as_posix(): path.read_text("utf-8")
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
    files = {path: text.encode() for path, text in packages.relocate(made, package).items()}
    obsolete = {naming.output_path(source.name) for source in sources} - files.keys()
    return Output(files, tuple(sorted(obsolete)), said)


def _messages(stderr: str) -> tuple[str, ...]:
    """Return what protoc said, one message a line, with paths relative to the current folder."""
    here = f"{Path.cwd()}{os.sep}"
    lines = (line for line in stderr.splitlines() if line.strip() and not line.startswith(_LOGGER))
    return tuple(dict.fromkeys(_NOISE.sub("", line).removeprefix(here) for line in lines))


def _arguments(
    sources: Sequence[Source], includes: Sequence[Path], out: Path, scripts: Path, package: str
) -> list[str]:
    roots = dict.fromkeys([*(source.root for source in sources), *(include.resolve() for include in includes)])
    grpc_tools = importlib.util.find_spec("grpc_tools")
    # google/protobuf/*.proto come with grpcio-tools; last, so that a user's copy is taken before them.
    well_known = [Path(folder, "_proto") for folder in (grpc_tools and grpc_tools.submodule_search_locations) or ()]
    return [
        *(f"--plugin=protoc-gen-{name}={_script(scripts, name, code)}" for name, code in _PLUGINS.items()),
        *(f"--proto_path={root}" for root in (*roots, *well_known)),
        *(f"--{name}_out={out}" for name in ("python", "grpc_python")),
        f"--sdk_out=package={package}:{out}",
        *(f"--{name}_out=quiet:{out}" for name in ("mypy", "mypy_grpc")),
        *dict.fromkeys(source.name for source in sources),
    ]


def _script(folder: Path, name: str, code: str) -> Path:
    # Not the installed protoc-gen-… scripts: those may be on no PATH, absent, or of another environment. These run in
    # the interpreter that runs this.
    script = folder / f"protoc-gen-{name}"
    script.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)}\n", encoding="utf-8")
    script.chmod(0o700)
    return script


def compare(output: Output, folder: Path) -> Difference:
    """Return what has to change in ``folder`` until it holds ``output``."""
    changed = [path for path, content in output.files.items() if _read(folder / path) != content]
    removed = [path for path in output.obsolete if (_read(folder / path) or b"").startswith(_HEADER)]
    return Difference(tuple(sorted(changed)), tuple(sorted(removed)))


# First words of every module that this tool wrote (the template has them too). Only such a file is ever removed.
_HEADER = b"# Generated by `sdk codegen`"


def write(output: Output, difference: Difference, folder: Path) -> None:
    """Make the changes. New content is first put beside every old file, then all are swapped.

    Raises:
        CodegenError: The folder can't be written. No file has changed, unless a swap failed after others.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path in difference.changed:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f".{target.name}.new")
            staged.append((new, target))
            new.write_bytes(output.files[path])
        for new, target in staged:
            os.replace(new, target)
        for path in difference.removed:
            (folder / path).unlink(missing_ok=True)
    except OSError as error:
        _discard(new for new, _ in staged)
        raise CodegenError(f"can't write {error.filename or folder}: {error.strerror}", exit_code=2) from error


def _discard(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
