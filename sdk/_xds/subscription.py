"""State of one resource type on one ADS stream: subscribed, sent and acknowledged resources. No IO.

Envoy subscribes to a type once and answers every response: with an ACK (the response's nonce), or with a NACK (the
nonce and the error), after which it keeps its previous configuration. At most one response is in flight, so an answer
always belongs to a known response. A response contains the difference between the server's resources and those that
Envoy acknowledged:

* clusters and listeners: all of them if any changed, because Envoy removes those that a response leaves out;
* endpoints and routes: only those that changed, because Envoy keeps those that a response leaves out.

State-of-the-world variant of the xDS protocol:
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#grouping-resources-into-responses
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import chain, compress, count
from operator import is_not
from typing import TYPE_CHECKING

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import CLUSTER_TYPE, LISTENER_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk._xds.packing import Resource

# A response of these types must contain all resources that Envoy should have.
# https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
_FULL_STATE_TYPES = frozenset({CLUSTER_TYPE, LISTENER_TYPE})
_RESOURCES_FIELD = pb.DiscoveryResponse.RESOURCES_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class VersionedResources:
    """The server's resources of one type.

    Attributes:
        version: Increases with every change.
        resources: Name → packed resource.
    """

    version: int
    resources: Mapping[str, Resource]


@dataclass(frozen=True, slots=True)
class Response:
    """A ``DiscoveryResponse`` with the same fields.

    Attributes:
        version_info: The version of the resources.
        type_url: Their type.
        nonce: What Envoy's answer names it by.
        resources: The resources.
    """

    version_info: str
    type_url: str
    nonce: str
    resources: tuple[Resource, ...]

    def encode(self) -> bytes:
        """Return its encoding. Each resource is copied once: the endpoints of a deployment are up to a megabyte."""
        head = pb.DiscoveryResponse(version_info=self.version_info, type_url=self.type_url, nonce=self.nonce)
        fields = (resource.as_field(_RESOURCES_FIELD) for resource in self.resources)
        return b"".join((head.SerializeToString(), *chain.from_iterable(fields)))


class RequestKind(Enum):
    """Kind of a discovery request."""

    SUBSCRIBED = "the first request of the type, or a changed list of names"
    REPEATED = "the same names again: Envoy lost the resources, or needs them for another cluster"
    ACK = "Envoy accepted the response in flight"
    NACK = "Envoy rejected the response in flight"
    STALE = "sent before the last response arrived; a request with its nonce follows"


class Subscription:
    """Subscription of one stream to one resource type. A new stream starts with new subscriptions.

    Attributes:
        type_url: The resource type.
        names: The resource names that Envoy subscribed to; ignored if ``wildcard``.
        wildcard: Envoy subscribed to every resource of the type.
        rejection: Error of Envoy's NACK of the pending resources, or ``None``.
    """

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.names: frozenset[str] = frozenset()
        self.wildcard = False
        self.rejection: str | None = None
        self._nonces = map(str, count(1))
        self._nonce = ""
        self._is_full_state = type_url in _FULL_STATE_TYPES
        self._requested = False
        self._answered = False
        self._acked: dict[str, Resource] = {}
        self._in_flight: dict[str, Resource] | None = None
        self._rejected: dict[str, Resource] | None = None
        # Resources of which none is due, as long as neither they nor this subscription change.
        self._settled: Mapping[str, Resource] | None = None

    def receive(self, request: pb.DiscoveryRequest) -> RequestKind:
        """Process a request of this type. Call ``next_response`` afterwards."""
        if self._requested and request.response_nonce != self._nonce:
            return RequestKind.STALE
        answer, self._in_flight, self._settled = self._in_flight, None, None
        names_before, asked_before = self.names, self._requested
        self._requested = True
        self.names = frozenset(request.resource_names)
        self.wildcard = "*" in self.names or (self._is_full_state and not self.names)
        if answer is not None:
            kind = self._apply_answer(answer, request)
            if self.names != names_before:
                self._drop_unsubscribed()
            return kind
        self._drop_unsubscribed()
        if not asked_before or self.names - names_before:
            return RequestKind.SUBSCRIBED
        if self.names == names_before:
            # Otherwise an Envoy that creates a cluster again would never receive its endpoints.
            self._acked, self._answered = {}, False
            return RequestKind.REPEATED
        return RequestKind.SUBSCRIBED

    def _apply_answer(self, answer: dict[str, Resource], request: pb.DiscoveryRequest) -> RequestKind:
        if request.HasField("error_detail"):
            self._rejected, self.rejection = answer, request.error_detail.message
            # Envoy may have applied a part of it, so the previous resources must be sent again.
            self._answered = False
            self._acked = {name: packed for name, packed in self._acked.items() if name not in answer}
            return RequestKind.NACK
        self._acked = answer if self._is_full_state else {**self._acked, **answer}
        self._answered = True
        self._rejected = self.rejection = None
        return RequestKind.ACK

    def _drop_unsubscribed(self) -> None:
        # Envoy drops resources that it unsubscribes from, so they must be sent again after a new subscription.
        # https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#unsubscribing-from-resources
        if not self._is_full_state and not self.wildcard:
            self._acked = {name: packed for name, packed in self._acked.items() if name in self.names}

    def next_response(self, current: VersionedResources | None) -> Response | None:
        """Return the response to send now, or ``None``.

        Returns ``None`` while a response is in flight, if Envoy has acknowledged all resources, if it has rejected them
        (until ``retry``), and before the first publish: an empty response would delete the configuration of a running
        Envoy.

        Args:
            current: The server's resources of the type; ``None`` before the first publish.
        """
        if current is None or not self._requested or self._in_flight is not None:
            return None
        due = self._due(current)
        if due is None or due == self._rejected:
            return None
        self._rejected = self.rejection = None
        self._in_flight, self._nonce = due, next(self._nonces)
        return Response(str(current.version), self.type_url, self._nonce, tuple(due.values()))

    def _due(self, current: VersionedResources) -> dict[str, Resource] | None:
        if current.resources is self._settled:
            return None
        due = self._find_due(current.resources)
        if due is None:
            self._settled = current.resources
        return due

    def _find_due(self, resources: Mapping[str, Resource]) -> dict[str, Resource] | None:
        if self._is_full_state:
            wanted = resources if self.wildcard else {n: packed for n, packed in resources.items() if n in self.names}
            return None if self._answered and wanted == self._acked else dict(wanted)
        # The same object needs no comparison: thousands of endpoints are a megabyte.
        acked = self._acked
        changed = compress(resources, map(is_not, map(acked.get, resources), resources.values()))
        wanted = {n: resources[n] for n in changed if self.wildcard or n in self.names}
        return {name: packed for name, packed in wanted.items() if acked.get(name) != packed} or None

    def retry(self) -> None:
        """Let ``next_response`` send rejected resources again. The cause, such as a port in use, may be gone."""
        self._rejected = self.rejection = None

    def is_acked(self, current: VersionedResources) -> bool:
        """Return whether Envoy subscribed to and acknowledged all of the server's resources of this type."""
        if self._in_flight is not None or not self._requested or self._due(current) is not None:
            return False
        return self.wildcard or self.names >= current.resources.keys()
