"""Services and types as JSON values for the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdk._protos.catalog import build_catalog
from sdk.cli.rpc.schemas import FileSchema

DESK = Path(__file__).parents[1] / "support" / "protos" / "desk.proto"
OTHER = """\
edition = "2023";
message Node {
  Node next = 1;
  int32 old = 2 [deprecated = true, features.field_presence = LEGACY_REQUIRED];
  int32 plain = 3 [features.field_presence = IMPLICIT];
  int32 tracked = 4;
  map<string, Node> children = 5;
}
service Tree { rpc Grow(stream Node) returns (stream Node) { option deprecated = true; } }
"""


def catalog_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    schema = FileSchema([path], [], "--protos")
    found = build_catalog(schema.describe([]), schema.services())
    return {each["name"]: each for each in found["services"]}, {each["name"]: each for each in found["types"]}


@pytest.fixture(scope="module")
def desk() -> tuple[dict[str, Any], dict[str, Any]]:
    return catalog_of(DESK)


def test_services_have_their_methods_and_comments(desk: Any) -> None:
    services, _ = desk
    assert list(services) == ["desk.v1.Annex", "desk.v1.Desk"]
    found = services["desk.v1.Desk"]
    assert found["comment"] == "Takes tickets: one RPC of each cardinality, and some that go wrong."
    assert found["file"] == "desk.proto"
    methods = {each["name"]: each for each in found["methods"]}
    assert methods["Count"] == {
        "name": "Count",
        "path": "desk.v1.Desk/Count",
        "comment": "Counts down from the number.",
        "deprecated": False,
        "clientStreaming": False,
        "serverStreaming": True,
        "request": "desk.v1.Ticket",
        "response": "desk.v1.Ticket",
    }
    assert methods["Wait"]["deprecated"]


def test_types_have_every_kind_of_field(desk: Any) -> None:
    _, types = desk
    assert types["desk.v1.Ticket"]["comment"] == "What a visitor asks for."
    fields = {each.pop("name"): each for each in types["desk.v1.Ticket"]["fields"]}
    comments = {name: each.pop("comment") for name, each in fields.items()}
    assert {name: comment for name, comment in comments.items() if comment} == {"title": "one line"}
    assert fields["seats"] == {"json": "seats", "number": 3, "kind": "int32", "repeated": True}
    assert fields["urgency"] == {"json": "urgency", "number": 4, "kind": "enum", "type": "desk.v1.Urgency"}
    assert fields["owner"] == {"json": "owner", "number": 5, "kind": "message", "type": "desk.v1.Person"}
    assert fields["guests"] == {
        "json": "guests",
        "number": 6,
        "kind": "map",
        "key": {"kind": "string"},
        "value": {"kind": "message", "type": "desk.v1.Person"},
    }
    assert fields["is_remote"] == {"json": "isRemote", "number": 8, "kind": "bool", "oneof": "place"}
    assert fields["vip"] == {"json": "vip", "number": 16, "kind": "bool", "presence": True}
    assert fields["parent"]["type"] == "desk.v1.Ticket"
    assert fields["stamp"]["kind"] == "bytes"
    assert {"google.protobuf.Timestamp", "google.protobuf.Any", "google.protobuf.StringValue"} <= set(types)
    assert [each["name"] for each in types["desk.v1.Urgency"]["values"]] == ["URGENCY_UNSPECIFIED", "LOW", "HIGH"]


def test_presence_of_editions(tmp_path: Path) -> None:
    path = tmp_path / "tree.proto"
    path.write_text(OTHER)
    services, types = catalog_of(path)
    (grow,) = services["Tree"]["methods"]
    assert (grow["path"], grow["deprecated"], grow["clientStreaming"]) == ("Tree/Grow", True, True)
    fields = {each["name"]: each for each in types["Node"]["fields"]}
    assert "presence" not in fields["next"]
    assert (fields["old"]["required"], fields["old"]["deprecated"]) == (True, True)
    assert "presence" not in fields["plain"]
    assert fields["tracked"]["presence"]
    assert fields["children"]["value"] == {"kind": "message", "type": "Node"}
