"""The lines of messages and fields: loaded descriptors do not know them, proto files do, where those are found."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from codegen import compile as compiler
from codegen.errors import CodegenError
from codegen.sources import Source
from sdk._contract.locations import find_proto
from sdk._fingerprint import fingerprint


def with_lines(files: FileDescriptorSet) -> FileDescriptorSet:
    """Return files with the lines of their sources; without, where those are not found, or are other ones.

    Args:
        files: Files as generated code has them.
    """
    sources = []
    for file in files.file:
        path = None if file.name.startswith("google/protobuf/") else find_proto(file.name)
        if path is not None:
            root = Path(*path.parts[: len(path.parts) - len(Path(file.name).parts)])
            sources.append(Source(root, file.name, file.name))
    if not sources:
        return files
    try:
        with compiler.Protoc(sources) as protoc:
            protoc.read()
            compiled = {file.name: file for file in FileDescriptorSet.FromString(protoc.descriptors()).file}
    except CodegenError:  # no compiler, or imports from elsewhere
        return files
    found = FileDescriptorSet()
    for file in files.file:
        other = compiled.get(file.name, file)
        is_same = fingerprint(other.SerializeToString()) == fingerprint(file.SerializeToString())
        found.file.append(other if is_same else file)
    return found
