"""Protos that every process of Ray Serve loads: a process that serves can't load another proto with the same names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from codegen.importable import find
from codegen.parsed_files import defined_names

if TYPE_CHECKING:
    from codegen.parsed_files import ParsedFiles

# Those of `ray.rpc` are loaded too, from files that nobody copies.
_MODULES = ("grpc_reflection.v1alpha.reflection_pb2", "ray.serve.generated.serve_pb2")
_SERIALIZED = re.compile(r"AddSerializedFile\((b'.*')\)$", re.MULTILINE)


def warnings(parsed: ParsedFiles, shown: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each proto with a name of a proto that Ray Serve loads.

    Args:
        parsed: The files that protoc has parsed.
        shown: The path of each compiled proto as the user gave it, by name.
    """
    for module in _MODULES:
        loaded = _file(module)
        if loaded is None:
            continue
        told = {loaded.name}  # the same file is loaded once
        for name in defined_names(loaded):
            owner = parsed.owner(name)
            if owner is not None and owner in shown and owner not in told:
                told.add(owner)
                yield (
                    f"{shown[owner]}: warning: Ray Serve loads {name} from {module}, and a process can load one proto "
                    "with this name: what imports the generated module can't be served; --exclude the proto"
                )


def _file(module: str) -> FileDescriptorProto | None:
    """Return the proto file of an installed ``_pb2`` module, without its import; None if it is not installed."""
    spec = find(module)
    if spec is None or spec.origin is None:
        return None
    match = _SERIALIZED.search(Path(spec.origin).read_text("utf-8"))
    return None if match is None else FileDescriptorProto.FromString(ast.literal_eval(match[1]))
