"""curl as a client: its own HTTP, its own reading of streams, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import sdk.testing
from tests.support.loops import PATIENCE_S

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")
SAY = "/sdk.web.Chat/Say"
JSON = ("-H", "content-type: application/json", "-d")


def curl(server: sdk.testing.Server, path: str, *options: str) -> tuple[int, str, bytes]:
    """Return HTTP status, content-type and body; it fails if curl does."""
    assert CURL is not None
    form = "\n%{http_code} %{content_type}"
    command = [CURL, "-q", "-sS", "--noproxy", "*", "-w", form, *options, f"http://{server.target}{path}"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S)
    body, _, end = done.stdout.rpartition(b"\n")
    status, _, kind = end.decode().partition(" ")
    return int(status), kind, body


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_unary_call(server: sdk.testing.Server, version: str) -> None:
    status, kind, body = curl(server, SAY, version, *JSON, '{"text": "hé"}')
    assert (status, kind, json.loads(body)["text"]) == (200, "application/json", "hé")


def test_a_route_takes_path_query_and_body(server: sdk.testing.Server) -> None:
    status, _, body = curl(server, "/v1/authors/ann/say/x%2Fy?times=2", "-X", "PUT", *JSON, '{"number": 3}')
    request = json.loads(body)["request"]
    assert (status, request["text"], request["times"]) == (200, "x/y", 2)
    assert request["author"] == {"name": "ann", "number": "3"}


def test_a_file_is_sent_and_received(server: sdk.testing.Server, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    sent = tmp_path / "sent.png"
    sent.write_bytes(data)
    assert curl(server, "/v1/files/a", "-T", str(sent), "-H", "content-type: image/png") == (200, "image/png", data)


def test_a_stream_is_lines_or_events(server: sdk.testing.Server) -> None:
    asked = (*JSON, '{"text": "a", "times": 2, "code": 5}')
    status, kind, body = curl(server, "/sdk.web.Chat/Repeat", "-N", *asked)
    first, second, last = map(json.loads, body.splitlines())
    assert (status, kind, first["text"], second["number"]) == (200, "application/x-ndjson", "a", "1")
    assert last["error"]["code"] == "not_found"
    status, kind, body = curl(server, "/sdk.web.Chat/Repeat", "-N", "-H", "accept: text/event-stream", *asked)
    assert (status, kind, body.count(b"data: ")) == (200, "text/event-stream", 3)
    assert b'\n\nevent: error\ndata: {"code":"not_found"' in body


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        (SAY, (*JSON, '{"code": 7}'), 403, "permission_denied"),
        (SAY, (*JSON, '{"txt": ""}'), 400, "invalid_argument"),
        (SAY, ("-d", "{}"), 415, ""),  # application/x-www-form-urlencoded
        ("/sdk.web.Chat/Nothing", (*JSON, "{}"), 404, "unimplemented"),
        (SAY, (), 405, "unimplemented"),
        ("/v1/say", ("-X", "DELETE"), 405, "unimplemented"),
    ],
)
def test_an_error_is_json(
    server: sdk.testing.Server, path: str, options: tuple[str, ...], status: int, code: str
) -> None:
    answered, kind, body = curl(server, path, *options)
    assert (answered, kind) == (status, "application/json")
    error = json.loads(body)
    assert error["message"]
    assert error["code"] == (code or "invalid_argument")


def test_a_stream_of_bytes_that_fails_is_an_error_of_curl(server: sdk.testing.Server) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        curl(server, "/v1/downloads/ab?times=3&code=5")
    assert failed.value.returncode in (18, 52, 56)  # partial file, no answer, connection lost
