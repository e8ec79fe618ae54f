"""The official Python client of Connect, in each of its protocols: each kind of method, errors, deadlines, GET."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from connectrpc.client import ConnectClientSync, ResponseMetadata
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType

import sdk.testing

CLIENTS: dict[str, dict[str, Any]] = {
    "connect-proto": {"codec": google_protobuf_binary_codec()},
    "connect-json": {"codec": google_protobuf_json_codec(), "send_compression": None},
    "connect-gzip": {"codec": google_protobuf_json_codec(), "send_compression": GzipCompression()},
    "grpc-web": {"codec": google_protobuf_binary_codec(), "protocol": ProtocolType.GRPC_WEB},
}


def info(name: str, kind: StreamType) -> MethodInfo[Any, Any]:
    from chat_pb2 import Heard, Said

    level = IdempotencyLevel.NO_SIDE_EFFECTS if name == "Look" else IdempotencyLevel.UNKNOWN
    return MethodInfo(
        name=name,
        service_name="sdk.web.Chat",
        input=Said,
        output=Heard,
        idempotency_level=level,
        stream_type=kind,
    )


@pytest.fixture(params=CLIENTS)
def client(server: sdk.testing.Server, request: pytest.FixtureRequest) -> Iterator[ConnectClientSync]:
    with ConnectClientSync(f"http://{server.target}", **CLIENTS[request.param]) as made:
        yield made


def unary(client: ConnectClientSync, name: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Any:
    from chat_pb2 import Said

    return client.execute_unary(request=Said(**fields), method=info(name, StreamType.UNARY), headers=headers)


@pytest.mark.parametrize("method", ["Say", "SaySync"])
def test_unary(client: ConnectClientSync, method: str) -> None:
    heard = unary(client, method, {"x-mine": "m"}, text="hé")
    assert heard.text == "hé"
    assert "x-mine: 'm'" in heard.metadata


def test_metadata(client: ConnectClientSync) -> None:
    with ResponseMetadata() as seen:
        unary(client, "Say")
    assert seen.headers["x-first"] == "1"
    assert seen.trailers["x-last"] == "2"


@pytest.mark.parametrize("method", ["Say", "SaySync"])
def test_an_error_with_its_details(client: ConnectClientSync, method: str) -> None:
    with pytest.raises(ConnectError, match="ends with 9 — ü") as caught:
        unary(client, method, code=9, has_detail=True)
    assert caught.value.code.value == "failed_precondition"
    assert [detail.type_name for detail in caught.value.details] == ["google.rpc.RetryInfo"]


@pytest.mark.parametrize("method", ["Repeat", "RepeatSync"])
@pytest.mark.parametrize("code", [0, 9])
def test_a_stream_of_responses(client: ConnectClientSync, method: str, code: int) -> None:
    from chat_pb2 import Said

    request = Said(text="t", times=3, code=code)
    received = []
    error = None
    try:
        stream = client.execute_server_stream(request=request, method=info(method, StreamType.SERVER_STREAM))
        received.extend(heard.number for heard in stream)
    except ConnectError as raised:
        error = raised
    assert received == [0, 1, 2]
    assert (error is not None and error.code.value) == ("failed_precondition" if code else False)


@pytest.mark.parametrize("method", ["Collect", "CollectSync"])
def test_a_stream_of_requests(client: ConnectClientSync, method: str) -> None:
    from chat_pb2 import Said

    requests = iter([Said(text="a"), Said(text="b")])
    heard = client.execute_client_stream(request=requests, method=info(method, StreamType.CLIENT_STREAM))
    assert (heard.text, heard.number) == ("a b", 2)
    failing = iter([Said(text="a"), Said(code=5)])
    with pytest.raises(ConnectError, match="ends with 5") as caught:
        client.execute_client_stream(request=failing, method=info(method, StreamType.CLIENT_STREAM))
    assert caught.value.code.value == "not_found"


def test_a_get(server: sdk.testing.Server) -> None:
    from chat_pb2 import Said

    for options in ({"codec": google_protobuf_binary_codec()}, {"codec": google_protobuf_json_codec()}):
        with ConnectClientSync(f"http://{server.target}", **options) as client:
            for text in ("h?&é", "é" * 2000):
                method = info("Look", StreamType.UNARY)
                assert client.execute_unary(request=Said(text=text), method=method, use_get=True).text == text


def test_a_deadline(client: ConnectClientSync) -> None:
    from chat_pb2 import Said

    with pytest.raises(ConnectError) as caught:
        client.execute_unary(request=Said(waits=True), method=info("Say", StreamType.UNARY), timeout_ms=200)
    assert caught.value.code.value == "deadline_exceeded"
