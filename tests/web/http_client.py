"""HTTP requests as a script makes them."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

import sdk.testing
from tests.support.loops import PATIENCE_S


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


def ask(
    server: sdk.testing.Server,
    target: str,
    body: dict[str, Any] | bytes | None,
    headers: dict[str, str] | None = None,
    *,
    verb: str = "",
) -> Answer:
    """Make a request to a test server: POST if it has a body, and of JSON unless a header says otherwise."""
    return ask_at(server.target, target, body, headers, verb=verb)


def ask_at(
    address: str,
    target: str,
    body: dict[str, Any] | bytes | None,
    headers: dict[str, str] | None = None,
    *,
    verb: str = "",
    timeout_s: float = PATIENCE_S,
) -> Answer:
    """Make a request to an address."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = {} if body is None else {"content-type": "application/json"}
    sent.update(headers or {})
    try:
        given = {key: value for key, value in sent.items() if value}
        connection.request(verb or ("GET" if body is None else "POST"), target, data, given)
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()
