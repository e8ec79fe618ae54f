"""Tokens: every end of a stream, and a server that generates only for clients that read."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import grpc
import language_model_app
import pytest
from google.protobuf.json_format import MessageToJson
from language_model_app import LanguageModel
from language_model_pb2 import FinishReason, Prompt, Stats, StatsRequest, Token
from language_model_sdk import LanguageModelSyncClient
from markov import MarkovModel, split

import sdk.testing
from tests.support.deadlines import growing_deadlines

Serve = Callable[..., LanguageModelSyncClient]


def wait_for(client: LanguageModelSyncClient, condition: Callable[[Stats], bool]) -> Stats:
    until = time.monotonic() + 10
    while not condition(stats := client.GetStats(StatsRequest())):
        assert time.monotonic() < until, stats
        time.sleep(0.01)
    return stats


def test_the_model_knows_its_text_and_is_reproducible() -> None:
    model = MarkovModel("one two three one two four")
    words = [word for _, word in zip(range(50), model.continue_text("one", 1), strict=False)]
    assert words[0] == "two"
    assert set(words) <= {"one", "two", "three", "four"}
    assert words == [word for _, word in zip(range(50), model.continue_text("one", 1), strict=False)]
    assert split("It's here, now.") == ["it's", "here", ",", "now", "."]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(text="the river", seed=1, max_tokens=3), FinishReason.LENGTH),
        (Prompt(text="when the moon", seed=7), FinishReason.END_OF_TEXT),
        (Prompt(text="the letters wait", seed=33, stop=["RIVER"]), FinishReason.STOP),
    ],
)
def test_a_stream_says_in_its_last_message_why_it_ends(client: Serve, prompt: Prompt, reason: Any) -> None:
    model = client(LanguageModel.bind(step_s=0), LanguageModelSyncClient)
    *tokens, last = model.Generate(prompt)
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert {token.finish_reason for token in tokens} == {FinishReason.UNFINISHED}
    assert last == Token(index=len(tokens), finish_reason=reason)
    assert not {token.text.upper() for token in tokens} & set(prompt.stop)
    assert model.GetStats(StatsRequest()) == Stats(tokens=len(tokens), finished=1)


def test_a_token_arrives_before_the_later_ones_are_made(client: Serve) -> None:
    model = client(LanguageModel.bind(step_s=0.2), LanguageModelSyncClient)
    stream = iter(model.Generate(Prompt(text="the", max_tokens=50)))
    next(stream)
    assert model.GetStats(StatsRequest()).tokens < 10, "the last one comes after ten seconds"
    stream.cancel()


def test_a_client_that_cancels_ends_the_work(client: Serve) -> None:
    model = client(LanguageModel.bind(step_s=0.01), LanguageModelSyncClient)
    stream = iter(model.Generate(Prompt(text="the", stop=["never"])))
    next(stream)
    stream.cancel()
    stats = wait_for(model, lambda stats: stats.abandoned == 1)
    time.sleep(0.1)
    assert model.GetStats(StatsRequest()) == stats


def test_a_deadline_ends_the_work(client: Serve) -> None:
    model = client(LanguageModel.bind(step_s=0.01), LanguageModelSyncClient)
    for seconds in growing_deadlines():
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(model.Generate(Prompt(text="the", stop=["never"]), timeout=seconds))
        if model.GetStats(StatsRequest()).tokens:
            break
    assert wait_for(model, lambda stats: stats.abandoned == 1).tokens < seconds / 0.01 + 20


@pytest.fixture
def long_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model say words of 1,000 letters: a thousandth of the tokens fill the buffers."""
    monkeypatch.setattr(language_model_app, "MarkovModel", lambda: MarkovModel(f"{'a' * 1000} {'b' * 1000}"))


@pytest.mark.usefixtures("long_words")
def test_a_client_that_does_not_read_stops_the_model(client: Serve) -> None:
    # gRPC allows megabytes in flight to a distant client.
    small = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
    model = client(LanguageModel.bind(step_s=0), LanguageModelSyncClient, options=small)
    stream = iter(model.Generate(Prompt(text="the", stop=["never"])))
    next(stream)
    tokens = until_it_stops(model)
    for _ in range(tokens):  # the client reads the messages in flight, and the model continues
        next(stream)
    wait_for(model, lambda now: now.tokens > tokens)
    stream.cancel()


# -- browsers ---------------------------------------------------------------------------------

ENDLESS = Prompt(text="the", stop=["never"])
DATA = ENDLESS.SerializeToString()
BROWSERS = {
    "server-sent events": ("application/json", "text/event-stream", MessageToJson(ENDLESS).encode()),
    "gRPC-Web": ("application/grpc-web+proto", "*/*", struct.pack(">xI", len(DATA)) + DATA),
}


@pytest.mark.parametrize("protocol", BROWSERS)
def test_a_browser_that_leaves_ends_the_work(protocol: str) -> None:
    with begun(0.01, protocol) as (model, response):
        assert response.read(1)
        response.close()  # and with it the connection
        stats = wait_for(model, lambda stats: stats.abandoned == 1)
        time.sleep(0.1)
        assert model.GetStats(StatsRequest()) == stats


@pytest.mark.usefixtures("long_words")
@pytest.mark.parametrize("protocol", BROWSERS)
def test_a_browser_that_does_not_read_stops_the_model(protocol: str) -> None:
    with begun(0, protocol) as (model, response):
        tokens = until_it_stops(model)
        assert tokens > 0
        while model.GetStats(StatsRequest()).tokens == tokens:  # what is read makes room, and the model continues
            assert response.read(1 << 16)
        response.close()


@contextmanager
def begun(step_s: float, protocol: str) -> Iterator[tuple[LanguageModelSyncClient, HTTPResponse]]:
    """Begin a call without end in a protocol of browsers, and read the head of its response."""
    kind, accept, body = BROWSERS[protocol]
    with sdk.testing.serve(LanguageModel.bind(step_s=step_s)) as server:
        connection = HTTPConnection(server.target, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        headers = {"content-type": kind, "accept": accept, "connection": "close"}
        connection.request("POST", "/language_model.LanguageModel/Generate", body, headers)
        response = connection.getresponse()
        assert response.status == 200
        yield server.client(LanguageModelSyncClient), response


# Several times what the buffers of Envoy and of the kernel hold: how much they take depends on when each is read.
MORE_THAN_IN_FLIGHT = 50_000


def until_it_stops(model: LanguageModelSyncClient) -> int:
    before, stats = -1, model.GetStats(StatsRequest())
    while stats.tokens != before:
        assert stats.tokens < MORE_THAN_IN_FLIGHT
        time.sleep(0.2)
        before, stats = stats.tokens, model.GetStats(StatsRequest())
    return before


def test_too_many_tokens_are_refused(client: Serve) -> None:
    model = client(LanguageModel.bind(), LanguageModelSyncClient)
    with pytest.raises(grpc.RpcError, match="max_tokens must be from 0 to 1000000"):
        list(model.Generate(Prompt(max_tokens=-1)))
