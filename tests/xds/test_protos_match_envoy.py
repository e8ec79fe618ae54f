"""Compare names, numbers and types in protos/sdk/envoy.proto with Envoy's descriptors.

Those come from the package ``xds-protos``, which must not be installed together with Ray, because it overwrites files
of other packages. So it is installed into a temporary folder and loaded in another process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from sdk._gen import envoy_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.descriptor import FieldDescriptor

# Loads every module under the packages that we copied from, and prints one line of JSON for each name asked for.
DESCRIBE = """
import importlib, json, pathlib, sys, warnings
warnings.simplefilter("ignore")
root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
from google.protobuf import descriptor_pool, descriptor_pb2
names = json.load(sys.stdin)
for package in {name.rpartition(".")[0] for name in names}:
    for path in sorted(root.joinpath(*package.split(".")).glob("*_pb2.py")):
        importlib.import_module(f"{package}.{path.stem}")
pool = descriptor_pool.Default()
for name in names:
    try:
        descriptor, proto = pool.FindMessageTypeByName(name), descriptor_pb2.DescriptorProto()
    except KeyError:
        descriptor, proto = pool.FindEnumTypeByName(name), descriptor_pb2.EnumDescriptorProto()
    descriptor.CopyToProto(proto)
    print(json.dumps([name, type(proto).__name__, proto.SerializeToString().hex()]))
"""


def envoy_name(descriptor: Descriptor | EnumDescriptor) -> str:
    """Return Envoy's name of one of our messages or enums."""
    if descriptor.containing_type is not None:
        return f"{envoy_name(descriptor.containing_type)}.{descriptor.name}"
    if descriptor.full_name == "sdk.envoy.v1.ApiVersion":  # the one enum at the top
        return "envoy.config.core.v3.ApiVersion"
    if descriptor.file.name != "sdk/_gen/envoy.proto":
        return descriptor.full_name
    assert isinstance(descriptor, Descriptor)
    name = descriptor.GetOptions().Extensions[pb.envoy_name]
    assert name, f"{descriptor.full_name} lacks (envoy_name)"
    return name


def ours() -> dict[str, Descriptor | EnumDescriptor]:
    found: dict[str, Descriptor | EnumDescriptor] = {}

    def add(message: Descriptor) -> None:
        if not message.GetOptions().map_entry:
            found[envoy_name(message)] = message
            found.update((envoy_name(enum), enum) for enum in message.enum_types)
            for nested in message.nested_types:
                add(nested)

    for message in pb.DESCRIPTOR.message_types_by_name.values():
        add(message)
    found.update((envoy_name(enum), enum) for enum in pb.DESCRIPTOR.enum_types_by_name.values())
    return found


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("xds-protos")
    install = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "0"]
    command = [*install, "--timeout", "10", "--target", str(folder), "--no-deps", "xds-protos"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip can't install xds-protos: {done.stderr.strip()[-300:]}")
    described = subprocess.run(
        [sys.executable, "-c", DESCRIBE, str(folder)],
        input=json.dumps(sorted(ours())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert described.returncode == 0, described.stderr
    protos = {}
    for line in described.stdout.splitlines():
        name, kind, data = json.loads(line)
        protos[name] = getattr(descriptor_pb2, kind).FromString(bytes.fromhex(data))
    return protos


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def our_shape(field: FieldDescriptor) -> dict[str, object]:
    named = None if map_entry(field) is not None else field.message_type or field.enum_type
    return {
        "number": field.number,
        "type": field.type,
        "repeated": field.is_repeated,
        "of": envoy_name(named) if named is not None else None,
        "oneof": field.containing_oneof.name if field.containing_oneof is not None else None,
    }


def their_shape(message: Any, field: Any, is_map: bool) -> dict[str, object]:
    return {
        "number": field.number,
        "type": field.type,
        "repeated": field.label == field.LABEL_REPEATED,
        "of": (field.type_name.removeprefix(".") or None) if not is_map else None,
        "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None,
    }


def entry_types(message: Any, entry: str) -> list[tuple[int, int, str]]:
    (nested,) = (n for n in message.nested_type if n.name == entry)
    return [(field.number, field.type, field.type_name.removeprefix(".")) for field in nested.field]


def test_every_message_and_field_matches_envoy(official: dict[str, Any]) -> None:
    compared = 0
    for name, descriptor in ours().items():
        theirs = official[name]
        if isinstance(descriptor, EnumDescriptor):
            continue
        fields = {field.name: field for field in theirs.field}
        for field in descriptor.fields:
            assert field.name in fields, f"{name} has no field {field.name}"
            entry = map_entry(field)
            assert our_shape(field) == their_shape(theirs, fields[field.name], entry is not None), field.full_name
            if entry is not None:
                mine = [
                    (part.number, part.type, envoy_name(part.message_type) if part.message_type else "")
                    for part in entry.fields
                ]
                assert mine == entry_types(theirs, entry.name), field.full_name
            compared += 1
    assert compared > 150


def test_every_enum_matches_envoy(official: dict[str, Any]) -> None:
    compared = 0
    for name, descriptor in ours().items():
        theirs = official[name]
        if isinstance(descriptor, EnumDescriptor):
            assert {v.name: v.number for v in descriptor.values} == {v.name: v.number for v in theirs.value}, name
            compared += 1
    assert compared == 8
