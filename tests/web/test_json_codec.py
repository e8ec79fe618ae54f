"""JSON of messages and errors, the same in every process that answers."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any

from sdk import RpcError
from sdk._gen.bad_request_pb2 import BadRequest
from sdk._web import json_codec
from sdk._web.json_codec import error_object
from sdk._wire.status_trailers import error_trailers

TYPE = "type.googleapis.com/google.rpc.BadRequest"


@pytest.mark.parametrize("is_loaded", [True, False])
def test_details_of_validation_can_be_read_wherever_google_rpc_is_loaded(
    is_loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_loaded:
        monkeypatch.setattr(json_codec, "unpacked", lambda packed: packed)
    wrong = BadRequest.FieldViolation(field="id", description="is too short")
    packed = Any(type_url=TYPE, value=BadRequest(field_violations=[wrong]).SerializeToString())
    _, trailing = error_trailers(RpcError(grpc.StatusCode.INVALID_ARGUMENT, "", errors=[packed]), ())
    (bad,) = error_object(3, "", trailing)["details"]
    assert bad["debug"] == {"fieldViolations": [{"field": "id", "description": "is too short"}]}


def test_a_detail_that_is_not_what_it_says_has_its_bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_codec, "unpacked", lambda packed: packed)
    packed = Any(type_url=TYPE, value=b"\xff")
    assert json_codec._detail(packed) == {"type": "google.rpc.BadRequest", "value": "/w"}
