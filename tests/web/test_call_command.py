"""``sdk call --protocol`` makes the same call in each protocol, and prints the same."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

import sdk.testing
from sdk.cli.main import main

PROTOCOLS = ["grpc", "grpc-web", "connect", "json"]


def call(server: sdk.testing.Server, protocol: str, method: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["call", server.target, method, "--protocol", protocol, *options])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_message(server: sdk.testing.Server, protocol: str) -> None:
    done = call(server, protocol, "Chat/Say", "-d", '{"text": "hé"}', "-H", "x-mine: m", "--request-id", "r7")
    assert done.exit_code == 0, done.output
    message = json.loads(done.stdout)
    assert message["text"] == "hé"
    assert "x-mine: 'm'" in message["metadata"]
    assert done.stderr.startswith("OK (1 message in ")
    assert "x-last: 2" in done.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("method", ["Say", "Repeat"])
def test_an_error_with_its_details(server: sdk.testing.Server, protocol: str, method: str) -> None:
    request = '{"code": 9, "hasDetail": true, "times": 1}'
    done = call(server, protocol, f"Chat/{method}", "-d", request, "--json")
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert len(result["messages"]) == (method == "Repeat")
    assert result["status"]["code"] == "FAILED_PRECONDITION"
    assert result["status"]["message"] == "ends with 9 — ü"
    assert result["status"]["details"][0]["retryDelay"] == "7s"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_streams(server: sdk.testing.Server, protocol: str) -> None:
    done = call(server, protocol, "Chat/Repeat", "-d", '{"times": 3, "text": "a"}')
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a"] * 3
    done = call(server, protocol, "Chat/Talk", "-d", '{"text": "a"} {"text": "b"}')
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a", "b"]
    done = call(server, protocol, "Chat/Collect", "-d", '{"text": "a"} {"text": "b"}')
    assert json.loads(done.stdout) == {"text": "a b", "number": "2"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_deadline(server: sdk.testing.Server, protocol: str) -> None:
    done = call(server, protocol, "Chat/Say", "-d", '{"waits": true}', "--timeout", "0.2")
    assert done.exit_code == 1
    assert done.stderr.startswith("DEADLINE_EXCEEDED")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_application(server: sdk.testing.Server, protocol: str) -> None:
    protos = ["--protos", "tests/web/protos", "-I", INSTALLED]
    done = call(server, protocol, "Chat/Say", "--application", "nobody", *protos)
    assert done.exit_code == 1
    assert "Application 'nobody' not found" in done.stderr


def _installed() -> str:
    import google.api

    return google.api.__path__[0].removesuffix("/google/api")


INSTALLED = _installed()
