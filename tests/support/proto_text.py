"""Compiles the text of a proto file, as `sdk codegen` does, into descriptors with their lines."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from google.api import http_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from codegen import validate_proto
from sdk._protos.descriptors import Descriptors

_WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
# googleapis-common-protos, for `google.api.http`.
_GOOGLE = Path(http_pb2.__file__).parents[2]


@functools.cache
def compiled(text: str, name: str = "p.proto") -> FileDescriptorSet:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        out = Path(folder) / "out.binpb"
        includes = [f"-I{folder}", f"-I{_WELL_KNOWN}", f"-I{_GOOGLE}"]
        if "buf/validate/validate.proto" in text:  # protoc reads it whether it is imported or not
            packaged = Path(folder) / "packaged.binpb"
            rules = FileDescriptorProto.FromString(validate_proto.descriptor())
            packaged.write_bytes(FileDescriptorSet(file=[rules]).SerializeToString())
            includes.append(f"--descriptor_set_in={packaged}")
        arguments = ["protoc", *includes, "--include_imports", "--include_source_info"]
        assert protoc.main([*arguments, f"--descriptor_set_out={out}", name]) == 0, text
        return FileDescriptorSet.FromString(out.read_bytes())


def descriptors(text: str, name: str = "p.proto") -> Descriptors:
    return Descriptors(compiled(text, name), name)
