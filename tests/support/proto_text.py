"""Compiles the text of a proto file, as `sdk codegen` does, into descriptors with their lines."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from sdk._protos.descriptors import Descriptors

_WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


@functools.cache
def compiled(text: str, name: str = "p.proto") -> FileDescriptorSet:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        out = Path(folder) / "out.binpb"
        arguments = ["protoc", f"-I{folder}", f"-I{_WELL_KNOWN}", "--include_imports", "--include_source_info"]
        assert protoc.main([*arguments, f"--descriptor_set_out={out}", name]) == 0, text
        return FileDescriptorSet.FromString(out.read_bytes())


def descriptors(text: str, name: str = "p.proto") -> Descriptors:
    return Descriptors(compiled(text, name), name)
