"""Runs protoc with every plugin, or only to find out whether there is anything to do."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from codegen import naming
from codegen import relocate as packages
from codegen.errors import CodegenError
from codegen.sources import Source, absolute

_NEEDS = {"grpc_tools": "grpcio-tools", "jinja2": "jinja2", "mypy_protobuf": "mypy-protobuf"}

# `python -c` looks for modules in the current folder first; what lies there is not what is meant.
_PYTHON = "import sys; sys.path[:] = filter(None, sys.path); "

# What stands before the message in a line of protoc's: `--all_out: protoc-gen-all: ` for an error of a plugin, and
# `W0000 00:00:1795352970.6 5693 parser.cc:659] ` for what its logger says.
_NOISE = re.compile(r"^(--\w+_out: (protoc-gen-\w+: )?|[IWEF]\d{4} \S+ +\d+ \S+\] )")
_LOGGER = "WARNING: All log messages before absl::InitializeLog()"
_NOT_FOUND = re.compile(r"^(\S.*): File not found\.$")
_IMPORT = re.compile(r'^(.+:\d+:\d+: Import "(.+)" was not found) or had errors\.$')
_WARNING = re.compile(r"^\S[^:]*:(\d+:\d+:)? warning: |^No edition or syntax specified")


@dataclass(frozen=True, slots=True)
class Output:
    """What protoc and the plugins made.

    Attributes:
        files: Content of each file by its path below the output folder.
        warnings: What protoc had to say besides.
    """

    files: Mapping[str, bytes]
    warnings: tuple[str, ...]


def run(sources: Sequence[Source], includes: Sequence[Path] = (), package: str = "") -> Output:
    """Compile proto files and return what comes out; nothing is written but in a temporary folder.

    Args:
        sources: The proto files.
        includes: Folders to look for imported protos in.
        package: Dotted name of the package that the output is going to be; ``""`` when its folder will be on
            ``sys.path``.

    Raises:
        CodegenError: protoc or a plugin found something wrong. Or the codegen extra is missing.
    """
    with Protoc(sources, includes, package) as protoc:
        return Output(protoc.generate(), protoc.warnings)


class Protoc:
    """One compilation; a context manager, since it has a temporary folder.

    Args:
        sources: The proto files.
        includes: Folders to look for imported protos in.
        package: As in ``run``.

    Attributes:
        warnings: What protoc had to say about protos in which it found no error.

    Raises:
        CodegenError: The codegen extra is missing, or ``package`` is no package name.
    """

    def __init__(self, sources: Sequence[Source], includes: Sequence[Path] = (), package: str = "") -> None:
        packages.check(package)
        missing = [name for module, name in _NEEDS.items() if importlib.util.find_spec(module) is None]
        if missing:
            raise CodegenError(f"{', '.join(missing)} not installed: pip install 'ray-grpc-sdk[codegen]'", exit_code=2)
        self._sources = sources
        self._package = package
        # What each folder on protoc's path is called in messages. The first that has a file wins, there as here.
        self._folders = {source.root: _shown_root(source) for source in sources}
        for include in includes:
            self._folders.setdefault(absolute(include), str(include))
        self.warnings: tuple[str, ...] = ()

    def __enter__(self) -> Protoc:
        self._temporary = TemporaryDirectory(prefix="sdk-codegen-")
        self._folder = Path(self._temporary.name)
        # protoc takes an argument for a file of the current folder before it looks along its path.
        (self._folder / "empty").mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def read(self) -> None:
        """Parse the protos and all that they import, so that ``digest`` can tell of them.

        Raises:
            CodegenError: protoc found something wrong; the details are its messages.
        """
        self._run([])

    def descriptors(self) -> bytes:
        """Return a serialized ``FileDescriptorSet`` of the protos and all that they import.

        ``read`` or ``generate`` comes first.
        """
        return self._descriptors.read_bytes()

    def digest(self, others: Collection[str] = ()) -> str:
        """Return what tells everything that the output depends on: equal digests, equal output.

        ``read`` or ``generate`` comes first.

        Args:
            others: As in ``generate``.
        """
        digest = hashlib.sha256(_tools_digest().encode())
        for text in (self._package, *(source.name for source in self._sources), "", *sorted(others)):
            digest.update(text.encode() + b"\0")
        digest.update(self._descriptors.read_bytes())
        return digest.hexdigest()

    def generate(self, others: Collection[str] = ()) -> dict[str, bytes]:
        """Parse the protos and generate their code.

        Not from what ``read`` has parsed: descriptors in a file have every JSON name, and protoc would take each for
        one that the proto states.

        Args:
            others: Names of other protos whose modules lie in the same tree already.

        Returns:
            The content of each file by its path below the output folder.

        Raises:
            CodegenError: protoc or a plugin found something wrong; the details are its messages.
        """
        # One archive instead of thousands of small files, which would only be read and removed again.
        archive = self._folder / "out.zip"
        plugin = self._folder / "protoc-gen-all"
        tree = self._folder / "tree"
        tree.write_text("\n".join([*(source.name for source in self._sources), *others]), encoding="utf-8")
        command = [sys.executable, "-c", f"{_PYTHON}from codegen.bundled_plugins import main; main()", str(tree)]
        plugin.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n", encoding="utf-8")
        plugin.chmod(0o700)
        self._run(
            [
                f"--plugin=protoc-gen-all={plugin}",
                *(f"--{name}_out={archive}" for name in ("python", "grpc_python")),
                f"--all_out=package={self._package}:{archive}",
            ]
        )
        with zipfile.ZipFile(archive) as made:
            files = {name: made.read(name).decode() for name in made.namelist()}
        relocated = packages.relocate(files, self._package, [naming.module(name) for name in others])
        return {path: text.encode() for path, text in sorted(relocated.items())}

    @property
    def _descriptors(self) -> Path:
        return self._folder / "descriptors.pb"

    def _run(self, outputs: Sequence[str]) -> None:
        # google/protobuf/*.proto come with grpcio-tools; last, so that a user's copy is taken before them.
        well_known = [Path(folder, "_proto") for folder in _search_locations("grpc_tools")]
        arguments = [
            *(f"--proto_path={folder}" for folder in (*self._folders, *well_known)),
            # As plugins get the files: with comments, and with options that no runtime needs.
            *("--include_imports", "--include_source_info", "--retain_options"),
            f"--descriptor_set_out={self._descriptors}",
            *outputs,
            *(source.name for source in self._sources),
        ]
        # In a file: a command line has a limit, and a tree of protos may have more names than fit.
        listed = self._folder / "arguments"
        listed.write_text("\n".join(arguments), encoding="utf-8")
        code = f"{_PYTHON}from grpc_tools import protoc; sys.exit(protoc.main(['protoc', {f'@{listed}'!r}]))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self._folder / "empty",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = self._messages(done.stderr)
        if done.returncode != 0:
            errors = [line for line in said if not _WARNING.match(line)]
            if not errors:
                raise CodegenError(f"protoc failed with exit code {done.returncode}", details=said)
            raise CodegenError(f"{len(errors)} error{'s' * (len(errors) > 1)} in the protos", details=said)
        self.warnings = said

    def _messages(self, stderr: str) -> tuple[str, ...]:
        """Return what protoc said, one message a line, with the paths that the user gave."""
        lines = [_NOISE.sub("", line) for line in stderr.splitlines() if not line.startswith(_LOGGER)]
        missing = {match[1] for line in lines if (match := _NOT_FOUND.match(line))}
        # A plugin knows no folders: it names a file as protos do.
        names = {source.name: source.shown for source in self._sources}
        said: dict[str, None] = {}
        for line in lines:
            if not line.strip() or _NOT_FOUND.match(line):
                continue
            for folder, shown in self._folders.items():
                if line.startswith(f"{folder}/"):
                    line = str(Path(shown, line.removeprefix(f"{folder}/")))
                    break
            name, colon, rest = line.partition(":")
            line = names.get(name, name) + colon + rest
            if (match := _IMPORT.match(line)) and match[2] in missing:
                line = f"{match[1]} in {', '.join(self._folders.values())}; -I adds a folder"
            said[line] = None
        return tuple(said)


def _shown_root(source: Source) -> str:
    """Return how the user would call the root of a source: the path as given without the source's name."""
    shown, depth = Path(source.shown), len(Path(source.name).parts)
    if len(shown.parts) >= depth:
        return str(Path(*shown.parts[: len(shown.parts) - depth]))
    return str(source.root)


def _search_locations(module: str) -> Collection[str]:
    spec = importlib.util.find_spec(module)
    return (spec and spec.submodule_search_locations) or ()


def _tools_digest() -> str:
    """Return what changes when protoc, a plugin, or a template does."""
    from grpc_tools import grpc_version  # type: ignore[import-untyped]  # it has no types

    digest = hashlib.sha256(grpc_version.VERSION.encode())
    here = Path(__file__).resolve().parent
    # The templates lie in the package in the wheel, beside it in the source tree.
    folders = [here, here.parent / "templates", *map(Path, _search_locations("mypy_protobuf"))]
    files = {file for folder in folders for pattern in ("*.py", "*.jinja") for file in folder.rglob(pattern)}
    for content in sorted(file.read_bytes() for file in files):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
