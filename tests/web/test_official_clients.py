"""The official clients of gRPC-Web and Connect: protocol × cardinality × ending × async or sync."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk.testing
from tests.support.loops import PATIENCE_S
from tests.web.http_client import ask
from tests.web.node_clients import NodeClients

CONNECT = ["connect-node-json", "connect-node-proto", "connect-node-gzip", "connect-node-http1"]
BROWSER = ["connect-web-json", "connect-web-proto", "connect-web-grpc-web"]
GRPC_WEB = ["connect-node-grpc-web", "connect-node-grpc-web-gzip"]
GRPC_WEB_JS = ["grpc-web-binary", "grpc-web-text"]
ALL = [*CONNECT, *BROWSER, *GRPC_WEB, *GRPC_WEB_JS, "connect-node-grpc"]


@pytest.fixture(scope="module")
def node(server: sdk.testing.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeClients]:
    clients = NodeClients(server.target, Path(tmp_path_factory.mktemp("web")))
    yield clients
    clients.stop()


@pytest.mark.parametrize("method", ["Say", "SaySync"])
@pytest.mark.parametrize("client", ALL)
def test_unary(node: NodeClients, client: str, method: str) -> None:
    outcome = node.call(client, method, {"text": "hé", "author": {"number": "5"}}, headers={"x-mine": "m"})
    assert (outcome.code, outcome.message) == (0, "")
    (message,) = outcome.messages
    assert message["text"] == "hé"
    assert message["request"]["author"] == {"number": "5"}
    assert "x-mine: 'm'" in message["metadata"]


@pytest.mark.parametrize("client", [*CONNECT, *BROWSER, *GRPC_WEB])
def test_metadata(node: NodeClients, client: str) -> None:
    outcome = node.call(client, "Say", headers={"request_id": "r7"})
    assert (outcome.headers["x-first"], outcome.headers["x-first-bin"]) == ("1", "AQI")
    assert (outcome.trailers["x-last"], outcome.trailers["x-last-bin"]) == ("2", "AwQ")
    assert "r7" in (outcome.headers.get("request_id"), outcome.trailers.get("request_id"))


@pytest.mark.parametrize("method", ["Say", "SaySync", "Repeat", "RepeatSync"])
@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("client", ALL)
def test_an_error(node: NodeClients, client: str, method: str, times: int) -> None:
    outcome = node.call(client, method, {"code": 9, "hasDetail": True, "times": times})
    assert (outcome.code, outcome.message) == (9, "ends with 9 — ü")
    if client not in GRPC_WEB_JS:
        assert outcome.details == [{"retryDelay": "7s"}]
    assert len(outcome.messages) == (times if method.startswith("Repeat") else 0)


@pytest.mark.parametrize("method", ["Repeat", "RepeatSync"])
@pytest.mark.parametrize("client", ALL)
def test_server_streaming(node: NodeClients, client: str, method: str) -> None:
    outcome = node.call(client, method, {"times": 3, "text": "a" * 1000})
    assert outcome.code == 0
    assert [len(message["text"]) for message in outcome.messages] == [1000] * 3
    assert [message.get("number", "0") for message in outcome.messages] == ["0", "1", "2"]


@pytest.mark.parametrize("client", [*CONNECT, *GRPC_WEB, "connect-node-grpc"])
def test_client_and_bidi_streaming(node: NodeClients, client: str) -> None:
    collected = node.call(client, "Collect", {"text": "a"}, {"text": "b"})
    assert collected.messages == [{"text": "a b", "number": "2"}]
    assert node.call(client, "Collect", {"text": "a"}, {"code": 3}).code == 3
    if client != "connect-node-http1":
        talked = node.call(client, "Talk", {"text": "a"}, {"text": "b"}, {"code": 7})
        assert ([message["text"] for message in talked.messages], talked.code) == (["a", "b"], 7)


@pytest.mark.parametrize("client", ["connect-node-get", "connect-node-get-json"])
def test_get(node: NodeClients, client: str) -> None:
    outcome = node.call(client, "Look", {"text": "h?&é", "tags": ["x"]})
    assert outcome.messages[0]["request"] == {"text": "h?&é", "tags": ["x"]}
    assert node.call(client, "Look", {"code": 5}).code == 5


@pytest.mark.parametrize("client", ALL)
def test_deadline(node: NodeClients, client: str) -> None:
    assert node.call(client, "Say", {"waits": True}, timeout_ms=300).code == 4
    if client not in GRPC_WEB_JS:
        assert node.call(client, "Repeat", {"times": 1, "waits": True}, timeout_ms=300).code == 4


@pytest.mark.parametrize("client", [each for each in ALL if each not in GRPC_WEB_JS])  # theirs comes at once, in Node
def test_cancellation_reaches_the_handler(node: NodeClients, server: sdk.testing.Server, client: str) -> None:
    import time

    assert node.call(client, "Repeat", {"times": 1, "waits": True}, cancel_after=1).code == 1
    until = time.monotonic() + PATIENCE_S
    while ask(server, "/sdk.web.Chat/Waiting", {}).json:
        assert time.monotonic() < until, "the handler still waits"


@pytest.mark.parametrize("client", ALL)
def test_an_unknown_application(node: NodeClients, client: str) -> None:
    outcome = node.call(client, "Say", headers={"application": "nobody"})
    assert outcome.code == 5
    assert outcome.message.startswith("Application 'nobody' not found.")
