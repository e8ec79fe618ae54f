"""No breaking change that `buf breaking` finds with its rules WIRE and WIRE_JSON is missed with `--strict`."""

from __future__ import annotations

import json

import pytest

from sdk._protos.breaking.services import compare
from tests.protos.buf_pairs import PAIRS, Pair
from tests.protos.record_buf import RESULTS
from tests.support.proto_text import descriptors

BUF = json.loads(RESULTS.read_text())["pairs"]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_pair(pair: Pair) -> None:
    old = descriptors(pair.old)
    changes = compare(old, descriptors(pair.new), old.services, json=True)
    assert tuple(f"{change.severity} {change.rule} {change.path}" for change in changes) == pair.ours


def test_what_buf_finds_is_found() -> None:
    assert [pair.name for pair in PAIRS] == list(BUF)
    missed = [pair.name for pair in PAIRS if any(BUF[pair.name].values()) and not pair.ours]
    assert missed == []
    assert sum(any(rules.values()) for rules in BUF.values()) >= 60


def test_every_rule_of_buf_has_a_pair() -> None:
    seen = {rule for rules in BUF.values() for found in rules.values() for rule in found}
    # FILE_SAME_PACKAGE is a service of another name here: tests/protos/compatibility_cases.py.
    assert seen == {
        "ENUM_SAME_JSON_FORMAT",
        "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED",
        "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "ENUM_VALUE_SAME_NAME",
        "FIELD_NO_DELETE_UNLESS_NAME_RESERVED",
        "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "FIELD_SAME_DEFAULT",
        "FIELD_SAME_JSON_NAME",
        "FIELD_SAME_NAME",
        "FIELD_SAME_ONEOF",
        "FIELD_WIRE_COMPATIBLE_CARDINALITY",
        "FIELD_WIRE_COMPATIBLE_TYPE",
        "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY",
        "FIELD_WIRE_JSON_COMPATIBLE_TYPE",
        "MESSAGE_SAME_JSON_FORMAT",
        "MESSAGE_SAME_REQUIRED_FIELDS",
        "RESERVED_ENUM_NO_DELETE",
        "RESERVED_MESSAGE_NO_DELETE",
        "RPC_SAME_CLIENT_STREAMING",
        "RPC_SAME_IDEMPOTENCY_LEVEL",
        "RPC_SAME_REQUEST_TYPE",
        "RPC_SAME_RESPONSE_TYPE",
        "RPC_SAME_SERVER_STREAMING",
    }
