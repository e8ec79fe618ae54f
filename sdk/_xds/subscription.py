"""One type's part of one ADS stream: what Envoy asked for, was sent, and acknowledged. Plain state, no IO.

Envoy asks for a type once and answers every response: with an ACK (the response's nonce), or with a NACK (the nonce and
the error), after which it serves on with what it had. One response is under way at a time, so an answer always belongs
to a known response. What is due is the difference between what the server holds and what Envoy acknowledged:

* clusters and listeners: all of them, whenever any changed; what a response leaves out, Envoy drops;
* endpoints and routes: only those that changed; what a response leaves out stays as it was.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import CLUSTER_TYPE, LISTENER_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.any_pb2 import Any

# A response of these types must hold all that Envoy is to have.
_FULL_STATE_TYPES = frozenset({CLUSTER_TYPE, LISTENER_TYPE})


@dataclass(frozen=True, slots=True)
class VersionedResources:
    """What the server holds of one type.

    Attributes:
        version: Grows with every change.
        resources: Name → packed resource.
    """

    version: int
    resources: Mapping[str, Any]


class RequestKind(Enum):
    """What a request of Envoy's means."""

    SUBSCRIBED = "the first request of the type, or other names than before"
    REPEATED = "the same names again: Envoy lost what it had, or has a new use for it"
    ACK = "the response under way is in force"
    NACK = "the response under way was refused"
    STALE = "written before the last response arrived; a request that answers it follows"


class Subscription:
    """The state of one type on one stream. A new stream starts with a new subscription.

    Attributes:
        type_url: Envoy's name of the type.
        names: The resources that Envoy asked for; without effect while ``wildcard``.
        wildcard: Envoy wants every resource of the type.
        rejection: Envoy's reason for refusing what is still due, or ``None``.
    """

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.names: frozenset[str] = frozenset()
        self.wildcard = False
        self.rejection: str | None = None
        self._nonces = map(str, itertools.count(1))
        self._nonce = ""
        self._is_full_state = type_url in _FULL_STATE_TYPES
        self._requested = False
        self._answered = False
        self._acked: dict[str, Any] = {}
        self._in_flight: dict[str, Any] | None = None
        self._rejected: dict[str, Any] | None = None

    def receive(self, request: pb.DiscoveryRequest) -> RequestKind:
        """Takes a request of this type. Call ``next_response`` afterwards."""
        if self._requested and request.response_nonce != self._nonce:
            return RequestKind.STALE
        answer, self._in_flight = self._in_flight, None
        names_before, asked_before = self.names, self._requested
        self._requested = True
        self.names = frozenset(request.resource_names)
        self.wildcard = "*" in self.names or (self._is_full_state and not self.names)
        if answer is not None:
            return self._apply_answer(answer, request)
        self._drop_unsubscribed()
        if not asked_before or self.names - names_before:
            return RequestKind.SUBSCRIBED
        if self.names == names_before:
            # Without this an Envoy that re-creates a cluster would wait for its endpoints for ever.
            self._acked, self._answered = {}, False
            return RequestKind.REPEATED
        return RequestKind.SUBSCRIBED

    def _apply_answer(self, answer: dict[str, Any], request: pb.DiscoveryRequest) -> RequestKind:
        if request.HasField("error_detail"):
            self._rejected, self.rejection = answer, request.error_detail.message
            # Envoy may have taken a part of it: what it had before must be sent again to be sure that it has it.
            self._answered = False
            self._acked = {name: packed for name, packed in self._acked.items() if name not in answer}
            return RequestKind.NACK
        self._acked = answer if self._is_full_state else {**self._acked, **answer}
        self._answered = True
        self._rejected = self.rejection = None
        self._drop_unsubscribed()
        return RequestKind.ACK

    def _drop_unsubscribed(self) -> None:
        # Envoy drops what it no longer asks for, so it must be sent again when it asks again.
        if not self._is_full_state and not self.wildcard:
            self._acked = {name: packed for name, packed in self._acked.items() if name in self.names}

    def next_response(self, held: VersionedResources | None) -> pb.DiscoveryResponse | None:
        """Returns what to send now, or ``None``.

        Nothing while a response is under way, nothing that Envoy has, nothing that it refused (until ``retry``), and
        nothing before the server knows what is right: an empty answer would wipe out what a running Envoy serves.

        Args:
            held: What the server holds of the type; ``None`` if it was never told.
        """
        if held is None or not self._requested or self._in_flight is not None:
            return None
        due = self._due(held)
        if due is None or due == self._rejected:
            return None
        self._rejected = self.rejection = None
        self._in_flight, self._nonce = due, next(self._nonces)
        return pb.DiscoveryResponse(
            version_info=str(held.version), type_url=self.type_url, nonce=self._nonce, resources=due.values()
        )

    def _due(self, held: VersionedResources) -> dict[str, Any] | None:
        wanted = {name: packed for name, packed in held.resources.items() if self.wildcard or name in self.names}
        if self._is_full_state:
            return None if self._answered and wanted == self._acked else wanted
        return {name: packed for name, packed in wanted.items() if self._acked.get(name) != packed} or None

    def retry(self) -> None:
        """Lets ``next_response`` send again what Envoy refused: what was in its way, a taken port, may be gone."""
        self._rejected = self.rejection = None

    def is_acked(self, held: VersionedResources) -> bool:
        """Tells whether Envoy asked for and acknowledged everything that the server holds of this type."""
        if self._in_flight is not None or not self._requested or self._due(held) is not None:
            return False
        return self.wildcard or self.names >= held.resources.keys()
