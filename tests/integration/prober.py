"""A client of the probes: sends instructions, and returns the outcome of a call and the handler's journal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from probe_pb2 import Ask, Told

from tests.support.deadlines import growing_deadlines, wait_until
from tests.support.loops import PATIENCE_S

SERVICES = ("AsyncProbe", "SyncProbe")
METHODS = ("Unary", "Down", "Up", "Both")

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a call."""

    messages: list[Told]
    code: grpc.StatusCode
    details: str
    trailing: dict[str, Any]


class Prober:
    """Calls one implementation of the probe.

    Args:
        channel: An open channel.
        service: ``"AsyncProbe"`` or ``"SyncProbe"``.
        application: Name of the application.
    """

    def __init__(self, channel: grpc.Channel, service: str, application: str = "probe") -> None:
        self._channel = channel
        self.service = service
        self._metadata = (("application", application),)

    def begin(self, method: str, asks: Iterable[Ask], *, timeout: float | None = None, metadata: Metadata = ()) -> Any:
        """Start a call, always with a request stream: on the wire, a single request message looks the same."""
        call = self._channel.stream_stream(
            f"/probe.{self.service}/{method}",
            request_serializer=Ask.SerializeToString,
            response_deserializer=Told.FromString,
        )
        return call(iter(asks), timeout=timeout, metadata=(*self._metadata, *metadata))

    def ask(self, method: str, ask: Ask, **options: Any) -> Outcome:
        """Make a call, and wait for its end."""
        return outcome(self.begin(method, [ask], **options))

    def expire(self, method: str, ask: Ask, of: str = "journal") -> Outcome:
        """Make a call that expires after its handler began, as the journal says."""
        for seconds in growing_deadlines():
            ended = self.ask(method, ask, timeout=seconds)
            if any(event == "began" for event, _ in self.journal(ask.note, of)):
                break
        return ended

    def unary(self, act: str, note: str = "") -> Told:
        """Return the response of a unary call that succeeds."""
        ended = self.ask("Unary", Ask(act=act, note=note), timeout=PATIENCE_S)
        assert ended.code is grpc.StatusCode.OK, ended
        return ended.messages[0]

    def journal(self, note: str, of: str = "journal") -> list[tuple[str, float]]:
        """Return the journal's events with their times."""
        told: list[Told] = []

        def is_told() -> bool:
            ended = self.ask("Unary", Ask(act=of, note=note), timeout=PATIENCE_S)
            # An application with a short request timeout may need several calls on a busy machine.
            assert ended.code in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED), ended
            told[:] = ended.messages
            return bool(told)

        wait_until(is_told)
        return [(event, at) for event, at in json.loads(told[0].text)]

    def events(self, note: str) -> list[str]:
        """Return the journal's events."""
        return [event for event, _ in self.journal(note)]

    def wait_for(self, note: str, event: str, of: str = "journal") -> float:
        """Wait for an event in the journal, and return its time."""
        found: list[float] = []

        def is_there() -> bool:
            found[:] = [at for noted, at in self.journal(note, of) if noted.startswith(event)]
            return bool(found)

        wait_until(is_there)
        return found[0]


def outcome(call: Any) -> Outcome:
    """Wait for the end of a call."""
    messages: list[Told] = []
    with contextlib.suppress(grpc.RpcError):  # the call object has its status
        messages.extend(call)
    return Outcome(messages, call.code(), call.details(), dict(call.trailing_metadata()))
