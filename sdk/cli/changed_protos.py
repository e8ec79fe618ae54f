"""Protos that have changed since ``sdk codegen`` generated their code, where manifest and protos can be found."""

from __future__ import annotations

import importlib.util
import inspect
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from codegen import compile as compiler
from codegen import config, manifest
from codegen.errors import CodegenError
from codegen.sources import Source, absolute
from sdk._contract.implementations import generated_bases
from sdk._proto_files.fingerprint import fingerprint
from sdk._proto_files.order import imports_first

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor


@dataclass(frozen=True, slots=True)
class ChangedProto:
    """A proto whose generated code is out of date.

    Attributes:
        path: The proto, relative to the working directory if it is below it.
        reason: The rest of the message.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def changed_protos(classes: Iterable[type], *, only_newer: bool = False) -> list[ChangedProto]:
    """Return the protos that differ from the code that the classes use.

    Args:
        classes: Classes with generated bases.
        only_newer: Compile only protos that were written after the generated code, which is cheaper; a checkout of
            another version may write both at once.

    Returns:
        The protos; empty if ``sdk codegen`` is not installed, or no manifest lists the generated modules.
    """
    if importlib.util.find_spec("grpc_tools") is None:
        return []
    modules: dict[Path, FileDescriptor] = {}
    for cls in classes:
        for base in generated_bases(cls):
            modules[Path(inspect.getfile(base))] = vars(base)["__grpc_shim__"].service.file
    found: dict[str, ChangedProto] = {}
    for module, file in modules.items():
        out = next((folder for folder in module.parents if (folder / manifest.NAME).is_file()), None)
        if out is not None:
            for each in _changed_in(out, file, only_newer=only_newer):
                found.setdefault(each.path, each)
    return list(found.values())


def _changed_in(out: Path, file: FileDescriptor, *, only_newer: bool) -> Iterator[ChangedProto]:
    """Yield the changed protos among a file and its imports, as far as the manifest of their folder lists them."""
    known = manifest.load(out).protos
    files = reversed(imports_first([file], lambda each: each.dependencies))
    loaded = {each.name: each for each in files if each.name in known}
    sources = []
    for name in loaded:
        root = absolute(out / known[name].root)
        proto = root / name
        if proto.is_file() and not (only_newer and not _is_newer(proto, [out / path for path in known[name].files])):
            sources.append(Source(root, name, _shown(proto)))
    if not sources:
        return
    roots = {absolute(out / entry.root) for entry in known.values()}
    includes = sorted(root for root in roots if root.is_dir())  # a proto of a package has none
    try:
        with compiler.Protoc(sources, includes) as protoc:
            protoc.read()
            compiled = {each.name: each for each in FileDescriptorSet.FromString(protoc.descriptors()).file}
    except CodegenError as error:
        detail = f": {error.details[0]}" if error.details else ""
        yield ChangedProto(sources[0].shown, f"can't be compared with its generated code: {error}{detail}")
        return
    for source in sources:
        if fingerprint(compiled[source.name].SerializeToString()) != fingerprint(loaded[source.name].serialized_pb):
            yield ChangedProto(
                source.shown, f"has changed since its code in {_shown(out)} was generated; run: {_command(source, out)}"
            )


def _is_newer(proto: Path, generated: Iterable[Path]) -> bool:
    written = [path.stat().st_mtime_ns for path in generated if path.exists()]
    return not written or proto.stat().st_mtime_ns > min(written)


def _command(source: Source, out: Path) -> str:
    options = config.load(Path.cwd())
    if options.out and absolute(options.out) == out:
        return "sdk codegen"
    return shlex.join(["sdk", "codegen", _shown(source.root), "--out", _shown(out)])


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
