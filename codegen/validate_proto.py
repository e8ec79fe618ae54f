"""The proto ``buf/validate/validate.proto``, which defines validation rules, and the check of the rules that use it.

The package protovalidate has the proto as a descriptor, without its text. Protos that import it need no copy of it: its
descriptor is given to protoc, and its module is generated with those of the protos.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from codegen.console import count
from codegen.errors import CodegenError
from codegen.sources import Source, absolute, excluded
from sdk._validation.broken_rules import VALIDATE_PROTO, broken_rules_of_files
from sdk.errors import MissingExtraError

__all__ = ["VALIDATE_PROTO", "check_rules", "descriptor", "with_validate_proto"]

#: Ends the message about a proto that imports it while it is not found.
REMEDY = "pip install 'ray-grpc-sdk[validate]' brings it"
# In the manifest, the root of the proto. No such folder exists, so no run takes the proto for a removed one.
_ROOT = ".protovalidate"


@functools.cache
def descriptor() -> bytes:
    """Return the serialized descriptor of the proto; empty if protovalidate is not installed."""
    try:
        from protovalidate import ViolationsPb
    except ModuleNotFoundError:
        return b""
    return bytes(ViolationsPb.desc().file.proto.to_binary())


def with_validate_proto(
    sources: tuple[Source, ...], includes: Sequence[Path], exclude: Sequence[str], out: Path
) -> tuple[Source, ...]:
    """Return the sources, with the proto if one of them imports it and no folder has a copy.

    Args:
        sources: The protos to compile.
        includes: Folders to look for imported protos in.
        exclude: Patterns of protos to leave out.
        out: The output folder.
    """
    if excluded(VALIDATE_PROTO, exclude) or not any(_mentions(source) for source in sources):
        return sources
    folders = {*(source.root for source in sources), *map(absolute, includes)}
    if any((folder / VALIDATE_PROTO).exists() for folder in folders) or not descriptor():
        return sources
    found = Source(absolute(out) / _ROOT, VALIDATE_PROTO, VALIDATE_PROTO, descriptor())
    return tuple(sorted((*sources, found), key=lambda each: each.name))


def check_rules(files: bytes, sources: Sequence[Source]) -> tuple[str, ...]:
    """Check that the rules in some protos work. Return warnings.

    Args:
        files: Serialized ``FileDescriptorSet`` of the protos and all that they import.
        sources: The protos.

    Raises:
        CodegenError: A rule does not work; the details name each with its file and line.
    """
    shown = {source.name: source.shown for source in sources}
    try:
        broken = broken_rules_of_files(FileDescriptorSet.FromString(files), shown)
    except MissingExtraError as error:
        return (f"warning: the validation rules in the protos were not checked: {error}",)
    if broken:
        details = [str(each._replace(proto=shown[each.proto])) for each in broken]
        raise CodegenError(f"{count(len(broken), 'validation rule')} in the protos can't work", details=details)
    return ()


def _mentions(source: Source) -> bool:
    return VALIDATE_PROTO.encode() in source.read()
