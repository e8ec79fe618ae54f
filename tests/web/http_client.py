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
    """Make a request: POST if it has a body, and of JSON unless a header says otherwise."""
    connection = http.client.HTTPConnection(server.target, timeout=PATIENCE_S)
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = {} if body is None else {"content-type": "application/json"}
    sent.update(headers or {})
    try:
        connection.request(
            verb or ("GET" if body is None else "POST"), target, data, {k: v for k, v in sent.items() if v}
        )
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()
