"""Runs protoc: with every plugin, or only to parse the protos."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from codegen import fixups, naming, plugin, relocate
from codegen.batches import batches
from codegen.console import count
from codegen.errors import CodegenError
from codegen.generated_files import GeneratedFiles
from codegen.isolated import isolated
from codegen.parsed_files import ParsedFiles
from codegen.sources import Source, absolute
from codegen.template_folders import template_folders
from codegen.validate_proto import REMEDY, VALIDATE_PROTO, descriptor

_NEEDS = {"grpc_tools": "grpcio-tools", "jinja2": "jinja2", "mypy_protobuf": "mypy-protobuf"}

# Prefixes of protoc's messages: `--all_out: protoc-gen-all: ` of an error of a plugin, and
# `W0000 00:00:1795352970.6 5693 parser.cc:659] ` of its logger.
_NOISE = re.compile(r"^(--\w+_out: (protoc-gen-\w+: )?|[IWEF]\d{4} \S+ +\d+ \S+\] )")
_LOGGER = "WARNING: All log messages before absl::InitializeLog()"
# Plugins load the files too, and log warnings that protoc itself has written with their lines.
_REPEATED = re.compile(r"^W\d{4} \S+ +\d+ descriptor\.cc:\d+\] ")
# mypy-protobuf does not put every comment of something deprecated into its decorator. The comment is in the docstring.
_UNUSED_COMMENT = "Warning: Deprecation comment "
_NO_SYNTAX = re.compile(r"^No edition or syntax specified for the proto file: (.+?\.proto\w*)\. .*")
_ADD_SYNTAX = r'\1: warning: it is read as proto2, because it has neither syntax nor edition; add `syntax = "proto2";`'
_NOT_FOUND = re.compile(r"^(\S.*): File not found\.$")
_IMPORT = re.compile(r'^(.+:\d+:\d+: Import "(.+)" was not found) or had errors\.$')
# A serialized FileDescriptorSet, below the folder of a run of protoc.
_DESCRIPTORS = "descriptors.pb"
# A serialized CodeGeneratorRequest.
_REQUEST = "request.pb"

# Batches that run at the same time. Each takes some 250 MB.
_PARALLEL = 2
_WARNING = re.compile(r"^\S[^:]*:(\d+:\d+:)? warning: ")


@dataclass(frozen=True, slots=True)
class ProtocOutput:
    """Output of protoc and the plugins.

    Attributes:
        files: Content of each file by its path below the output folder.
        warnings: The warnings of protoc.
    """

    files: Mapping[str, bytes]
    warnings: tuple[str, ...]


def run(sources: Sequence[Source], includes: Sequence[Path] = (), package: str = "") -> ProtocOutput:
    """Compile proto files and return the output; only a temporary folder is written to.

    Args:
        sources: The proto files.
        includes: Folders to look for imported protos in.
        package: Dotted name of the package that the output is going to be; ``""`` if its folder will be on
            ``sys.path``.

    Raises:
        CodegenError: protoc or a plugin reported an error, or the codegen extra is missing.
    """
    with Protoc(sources, includes, package) as protoc:
        return ProtocOutput(dict(protoc.generate()), protoc.warnings)


def _nothing() -> None:
    pass


class Protoc:
    """One compilation; a context manager that owns a temporary folder.

    Args:
        sources: The proto files.
        includes: Folders to look for imported protos in.
        package: As in ``run``.

    Attributes:
        parsed: Knowledge of the files that protoc has parsed, after ``read`` or ``generate``.
        warnings: The warnings of protoc about protos without an error.

    Raises:
        CodegenError: The codegen extra is missing, or ``package`` is not a valid package name.
    """

    def __init__(self, sources: Sequence[Source], includes: Sequence[Path] = (), package: str = "") -> None:
        relocate.check_package(package)
        missing = [name for module, name in _NEEDS.items() if importlib.util.find_spec(module) is None]
        if missing:
            raise CodegenError(f"{', '.join(missing)} not installed: pip install 'ray-grpc-sdk[codegen]'", exit_code=2)
        self._sources = sources
        self._package = package
        # Each folder on protoc's path, and its name in messages. For protoc too, the first folder with a file wins.
        self._folders = {source.root: _shown_root(source) for source in sources if not source.descriptor}
        for include in includes:
            self._folders.setdefault(absolute(include), str(include))
        # Protos that no folder has, as descriptors.
        self._packaged = {source.name: source.descriptor for source in sources if source.descriptor}
        self.parsed = ParsedFiles()
        self.warnings: tuple[str, ...] = ()

    def __enter__(self) -> Protoc:
        self._closing = ExitStack()
        self._folder = Path(self._closing.enter_context(TemporaryDirectory(prefix="sdk-codegen-")))
        # protoc looks for its arguments in the current folder before it searches its path.
        (self._folder / "empty").mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def read(self) -> None:
        """Parse the protos and their imports. ``descriptors`` and ``digest`` need this, or ``generate``.

        Raises:
            CodegenError: protoc reported an error; the details are its messages.
        """
        self._run(self._folder, self._sources)
        self.parsed.add(self._folder / _DESCRIPTORS)

    def descriptors(self) -> bytes:
        """Return a serialized ``FileDescriptorSet`` of the protos and all that they import.

        Call ``read`` or ``generate`` first.

        Raises:
            CodegenError: As in ``read``, if a file has changed since.
        """
        path = self._folder / _DESCRIPTORS
        if not path.exists():  # it was generated in batches
            self.read()
        return path.read_bytes()

    def digest(self, others: Collection[str] = ()) -> str:
        """Return a digest of everything that the output depends on: equal digests, equal output.

        Call ``read`` or ``generate`` first.

        Args:
            others: As in ``generate``.
        """
        digest = hashlib.sha256(_tools_digest().encode())
        for text in (self._package, *(source.name for source in self._sources), "", *sorted(others)):
            digest.update(text.encode() + b"\0")
        for _, parsed in sorted(self.parsed.digests.items()):
            digest.update(parsed)
        return digest.hexdigest()

    def generate(self, others: Collection[str] = (), on_generated: Callable[[], None] = _nothing) -> GeneratedFiles:
        """Parse the protos and generate their code, of many protos in batches.

        It does not use the descriptors of ``read``: they have every JSON name, and protoc would treat each as one that
        the proto sets.

        Args:
            others: Names of other protos whose modules are in the output folder already.
            on_generated: Called for each proto when its code is generated.

        Returns:
            The content of each file by its path below the output folder, until the compilation is closed.

        Raises:
            CodegenError: protoc or a plugin reported an error; the details are its messages.
        """
        names = [*(source.name for source in self._sources), *others]
        modules = [naming.module(name) for name in names]
        generated = self._closing.enter_context(closing(GeneratedFiles(self._folder / "generated")))
        reserved: dict[str, str] = {}
        for batch, files in self._generate_batches(names):
            relocated = relocate.relocate(files, self._package, modules, reserved)
            generated.extend({path: text.encode() for path, text in relocated.items()})
            reserved |= fixups.with_reserved_names(files)
            for _ in batch:
                on_generated()
        return generated

    def _plugin(self, names: Sequence[str] = ()) -> Path:
        """Write the plugin that protoc starts, and return its path.

        Args:
            names: Names of all protos whose modules are in the output folder. Without them, the plugin only keeps the
                request, for ``_respond``.
        """
        if names:
            listed = self._folder / "all_protos"
            listed.write_text("\n".join(names), encoding="utf-8")
            # `python -c` puts the current folder first on sys.path; modules there may hide ours.
            code = "import sys; sys.path[:] = filter(None, sys.path); from codegen.bundled_plugins import main; main()"
            command = f"exec {shlex.join([sys.executable, '-c', code, str(listed)])}"
        else:
            # protoc looks in the response for what a plugin supports.
            response = self._folder / "response"
            response.write_bytes(plugin.respond(CodeGeneratorRequest()).SerializeToString())
            command = f"cat > {shlex.quote(str(self._folder / _REQUEST))} && cat {shlex.quote(str(response))}"
        script = self._folder / "protoc-gen-all"
        script.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        script.chmod(0o700)
        return script

    def _respond(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the name and content of each file of the plugins for the request that protoc made.

        Args:
            names: Names of all protos whose modules are in the output folder.

        Raises:
            CodegenError: A plugin reported an error.
        """
        from codegen import bundled_plugins  # with mypy-protobuf, which is slow to import

        request = isolated(CodeGeneratorRequest).FromString((self._folder / _REQUEST).read_bytes())
        said: list[str] = []
        response = bundled_plugins.respond(request, names, said.append)
        messages = self._messages("\n".join((*said, response.error)))
        if response.error:
            raise _error((*self.warnings, *messages))
        self._warn(messages)
        yield from ((file.name, file.content) for file in response.file)

    def _generate_batches(self, names: Sequence[str]) -> Iterator[tuple[Sequence[Source], dict[str, str]]]:
        """Yield each batch of sources with its files.

        A source comes after those that it imports, or with them.

        Args:
            names: Names of all protos whose modules are in the output folder.
        """
        divided = batches(self._sources)
        are_many = len(divided) > 1
        # A single batch needs no process for the plugins; those of many use all cores.
        plugin = self._plugin(names if are_many else ())
        # In the first folder, `descriptors` finds the set of a run with a single batch.
        folders = [self._folder, *(self._folder / f"batch-{number}" for number in range(1, len(divided)))]

        def generate(batch: Sequence[Source], folder: Path) -> Path:
            folder.mkdir(exist_ok=True)
            # One archive instead of thousands of small files, which would only be read and removed again.
            archive = folder / "out.zip"
            outputs = [f"--{name}_out={archive}" for name in ("python", "grpc_python")]
            ours = [f"--plugin=protoc-gen-all={plugin}", f"--all_out=package={self._package}:{archive}"]
            self._run(folder, batch, [*outputs, *ours])
            return archive

        pool = ThreadPoolExecutor(_PARALLEL)
        try:
            for batch, folder, archive in zip(divided, folders, pool.map(generate, divided, folders), strict=True):
                self.parsed.add(folder / _DESCRIPTORS)
                # A comment that is not UTF-8 gets into gRPC's module as it is.
                files = {name: content.decode(errors="replace") for name, content in _unpacked(archive)}
                archive.unlink()
                if are_many:
                    (folder / _DESCRIPTORS).unlink()
                else:
                    files |= self._respond(names)
                yield batch, files
        except CodegenError:
            if are_many:
                pool.shutdown(cancel_futures=True)
                self.read()  # raises the errors of all protos together
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if are_many and self.parsed.may_conflict:
            self.read()

    def _run(self, folder: Path, sources: Sequence[Source], outputs: Sequence[str] = ()) -> None:
        """Run protoc, which writes the descriptors too.

        Args:
            folder: A folder for its arguments and the descriptors.
            sources: The protos.
            outputs: Arguments for the generators.

        Raises:
            CodegenError: protoc or a plugin reported an error.
        """
        packaged = dict(self._packaged)
        # google/protobuf/*.proto come with grpcio-tools; last, so that a user's copy has precedence.
        well_known = [Path(folder, "_proto") for folder in _search_locations("grpc_tools")]
        arguments = [
            *(f"--proto_path={folder}" for folder in (*self._folders, *well_known)),
            # Plugins receive files like this: with comments, and with options that no runtime needs.
            *("--include_imports", "--include_source_info", "--retain_options"),
            f"--descriptor_set_out={folder / _DESCRIPTORS}",
            *(_packaged_protos(packaged, folder / "packaged.pb") if packaged else ()),
            *outputs,
            *map(_argument, sources),
        ]
        # In a file: the length of a command line is limited, and the names of many protos may exceed it.
        listed = folder / "arguments"
        listed.write_bytes(os.fsencode("\n".join(arguments)))
        # All that `grpc_tools.protoc.main` does; its module imports what takes twice as long as protoc itself.
        path = [str(Path(folder).parent) for folder in _search_locations("grpc_tools")]
        code = f"import sys; sys.path += {path!r}; from grpc_tools._protoc_compiler import run_main; "
        code += f"sys.exit(run_main([b'protoc', {f'@{listed}'.encode()!r}]))"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],  # without what only slows the start
            cwd=self._folder / "empty",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0 and self._find_packaged(done.stderr, packaged):
            self._run(folder, sources, outputs)
            return
        messages = self._messages(done.stderr)
        if done.returncode != 0:
            raise _error(messages, f"protoc failed with exit code {done.returncode}")
        self._warn(messages)

    def _warn(self, warnings: Sequence[str]) -> None:
        self.warnings = tuple(dict.fromkeys((*self.warnings, *warnings)))

    def _find_packaged(self, stderr: str, given: Collection[str]) -> bool:
        """Return True if a proto that protoc did not find is in an installed package, and was not given to it."""
        missing = f"{VALIDATE_PROTO}: File not found."
        if missing not in stderr or VALIDATE_PROTO in given or not descriptor():
            return False
        self._packaged[VALIDATE_PROTO] = descriptor()
        return True

    def _messages(self, stderr: str) -> tuple[str, ...]:
        """Return the messages of protoc, each on one line, with the paths that the user gave."""
        said = [line for line in stderr.splitlines() if not (line.startswith(_LOGGER) or _REPEATED.match(line))]
        lines = [_NO_SYNTAX.sub(_ADD_SYNTAX, _NOISE.sub("", line)) for line in said]
        missing = {match[1] for line in lines if (match := _NOT_FOUND.match(line))}
        # A plugin does not know the folders: it names a file like an import does.
        names = {source.name: source.shown for source in self._sources}
        messages: dict[str, None] = {}
        for line in lines:
            if not line.strip() or _NOT_FOUND.match(line) or line.startswith(_UNUSED_COMMENT):
                continue
            for folder, shown in self._folders.items():
                if line.startswith(f"{folder}/"):
                    line = str(Path(shown, line.removeprefix(f"{folder}/")))
                    break
            name, colon, rest = line.partition(":")
            line = names.get(name, name) + colon + rest
            if (match := _IMPORT.match(line)) and match[2] in missing:
                line = f"{match[1]} in {', '.join(self._folders.values())}; -I adds a folder"
                line += f", and {REMEDY}" if match[2] == VALIDATE_PROTO else ""
            messages[line] = None
        return tuple(messages)


def _error(messages: Sequence[str], without: str = "") -> CodegenError:
    """Return the error for messages of protoc and the plugins; its text is ``without`` if all are warnings."""
    errors = [line for line in messages if not _WARNING.match(line)]
    return CodegenError(f"{count(len(errors), 'error')} in the protos" if errors else without, details=messages)


def _unpacked(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file in an archive of protoc, which it does not compress.

    ``ZipFile.read`` takes longer for a small file than all else that is done with it.
    """
    content = archive.read_bytes()
    # protoc writes names in UTF-8 without the flag that says so.
    with zipfile.ZipFile(archive, metadata_encoding="utf-8") as packed:
        for file in packed.infolist():
            # The header has 30 bytes, a name and an extra field, whose lengths are its last numbers:
            # https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.7
            lengths = struct.unpack_from("<HH", content, file.header_offset + 26)
            start = file.header_offset + 30 + sum(lengths)
            yield file.filename, content[start : start + file.file_size]


def _packaged_protos(packaged: Mapping[str, bytes], path: Path) -> list[str]:
    """Write protos that no folder has, and return the argument for them. A folder's own copy has precedence."""
    files = FileDescriptorSet(file=[FileDescriptorProto.FromString(each) for each in packaged.values()])
    path.write_bytes(files.SerializeToString())
    return [f"--descriptor_set_in={path}"]


def _argument(source: Source) -> str:
    # A name like `-x.proto` would be an option; protoc takes the path of a file below a root too.
    return source.path if source.name[0] in "-@" else source.name


def _shown_root(source: Source) -> str:
    """Return the root of a source in the user's terms: the path as given without the source's name."""
    if source.shown.endswith(f"/{source.name}"):  # nearly all of a large tree
        return source.shown.removesuffix(f"/{source.name}") or "/"
    shown, depth = Path(source.shown), len(Path(source.name).parts)
    if len(shown.parts) >= depth:
        return str(Path(*shown.parts[: len(shown.parts) - depth]))
    return str(source.root)


def _search_locations(module: str) -> Collection[str]:
    spec = importlib.util.find_spec(module)
    return (spec and spec.submodule_search_locations) or ()


@cache  # of what this process has loaded, which `--watch` keeps when a tool changes
def _tools_digest() -> str:
    """Return a digest that changes if protoc, a plugin, or a template changes."""
    from grpc_tools import grpc_version  # type: ignore[import-untyped]  # it has no types

    digest = hashlib.sha256(grpc_version.VERSION.encode())
    here = Path(__file__).resolve().parent
    folders = [here, *template_folders(), *map(Path, _search_locations("mypy_protobuf"))]
    files = {file for folder in folders for pattern in ("*.py", "*.jinja") for file in folder.rglob(pattern)}
    for content in sorted(file.read_bytes() for file in files):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
