"""Line numbers of messages and fields, from the proto files: descriptors at run time do not have them."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from codegen import compile as compiler
from codegen.errors import CodegenError
from codegen.sources import Source
from sdk._contract.locations import find_proto
from sdk._proto_files.fingerprint import fingerprint


def with_lines(files: FileDescriptorSet) -> FileDescriptorSet:
    """Return files with the line numbers of their protos; unchanged if a proto is not found or differs.

    Args:
        files: The files of generated code.
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
    except CodegenError:  # the compiler is not installed, or an import is not found
        return files
    found = FileDescriptorSet()
    for file in files.file:
        other = compiled.get(file.name, file)
        is_same = fingerprint(other.SerializeToString()) == fingerprint(file.SerializeToString())
        found.file.append(other if is_same else file)
    return found
