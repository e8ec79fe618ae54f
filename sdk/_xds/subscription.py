"""State of one resource type on one ADS stream: subscribed, sent and acknowledged resources. No IO.

Envoy subscribes to all clusters and listeners, and to endpoints, filters and routes by name. A response contains the
difference between the server's resources and those that Envoy has: resources that changed, and names of those that are
gone. Envoy answers every response: with an ACK (the response's nonce), or with a NACK (the nonce and the error). At
most one response is in flight, so an answer always belongs to a known response.

Incremental variant of the xDS protocol:
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, compress, count
from operator import is_not
from typing import TYPE_CHECKING, NamedTuple

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import CLUSTER_TYPE, LISTENER_TYPE, field_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk._xds.packing import Resource

# https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
_WILDCARD_TYPES = frozenset({CLUSTER_TYPE, LISTENER_TYPE})
_RESOURCES_FIELD = pb.DeltaDiscoveryResponse.RESOURCES_FIELD_NUMBER
_RESOURCE_FIELD = pb.DiscoveryResource.RESOURCE_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class VersionedResources:
    """The server's resources of one type.

    Attributes:
        version: Increases with every change.
        resources: Name → packed resource.
    """

    version: int
    resources: Mapping[str, Resource]


class Difference(NamedTuple):
    """The difference between the server's resources and those of Envoy.

    Attributes:
        changed: Resources that Envoy does not have.
        removed: Names of resources that only Envoy has.
    """

    changed: dict[str, Resource]
    removed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Response:
    """A ``DeltaDiscoveryResponse``.

    Attributes:
        version: The version of the resources.
        type_url: Their type.
        nonce: What Envoy's answer names it by.
        difference: The resources.
        replaces: True if Envoy may have another version of a changed resource.
    """

    version: str
    type_url: str
    nonce: str
    difference: Difference
    replaces: bool

    def encode(self) -> bytes:
        """Return its encoding. Each resource is copied once: the endpoints of a deployment are up to a megabyte."""
        head = pb.DeltaDiscoveryResponse(
            system_version_info=self.version,
            type_url=self.type_url,
            nonce=self.nonce,
            removed_resources=sorted(self.difference.removed),
        )
        fields = (self._field(name, resource) for name, resource in self.difference.changed.items())
        return b"".join((head.SerializeToString(), *chain.from_iterable(fields)))

    def _field(self, name: str, resource: Resource) -> tuple[bytes, ...]:
        head = pb.DiscoveryResource(name=name, version=self.version).SerializeToString()
        packed = resource.as_field(_RESOURCE_FIELD)
        return field_head(_RESOURCES_FIELD, len(head) + sum(map(len, packed))), head, *packed


class Subscription:
    """Subscription of one stream to one resource type. A new stream starts with new subscriptions.

    Attributes:
        type_url: The resource type.
        names: The resource names that Envoy subscribed to; empty if it subscribes to every resource of the type.
        rejection: Error of Envoy's NACK of the pending resources, or ``None``.
    """

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.names: set[str] = set()
        self.rejection: str | None = None
        self._nonces = map(str, count(1))
        self._nonce = ""
        self._is_wildcard = type_url in _WILDCARD_TYPES
        self._requested = False
        # What Envoy has, or will have when it has accepted what is in flight; None if it may be another version.
        self._sent: dict[str, Resource | None] = {}
        self._in_flight: Difference | None = None
        self._rejected: Difference | None = None
        # Resources of which none is due, as long as neither they nor this subscription change.
        self._settled: Mapping[str, Resource] | None = None

    def receive(self, request: pb.DeltaDiscoveryRequest) -> None:
        """Process a request of this type. Call ``next_response`` afterwards."""
        self._settled = None
        if not self._requested:
            self._requested = True
            # Envoy has them from an earlier stream, which may have been that of another server.
            self._sent = dict.fromkeys(request.initial_resource_versions)
        if self._in_flight is not None and request.response_nonce == self._nonce:
            answered, self._in_flight = self._in_flight, None
            if request.HasField("error_detail"):
                self._rejected, self.rejection = answered, request.error_detail.message
                # Envoy may have applied a part of it.
                applied = (*answered.changed, *answered.removed)
                self._sent.update(dict.fromkeys(name for name in applied if self._is_wildcard or name in self.names))
        if self._is_wildcard:
            return
        self.names.update(request.resource_names_subscribe)
        self.names.difference_update(request.resource_names_unsubscribe)
        # Envoy drops what it unsubscribes from. It needs what it subscribes to, even if it has been subscribed.
        # https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#unsubscribing-from-resources
        for name in (*request.resource_names_subscribe, *request.resource_names_unsubscribe):
            self._sent.pop(name, None)

    def next_response(self, current: VersionedResources | None) -> Response | None:
        """Return the response to send now, or ``None``.

        Returns ``None`` while a response is in flight, if Envoy has acknowledged all resources, if it has rejected them
        (until ``retry``), and before the first publish: a response would delete the configuration of a running Envoy.

        Args:
            current: The server's resources of the type; ``None`` before the first publish.
        """
        if current is None or not self._requested or self._in_flight is not None:
            return None
        due = self._due(current)
        if due is None or due == self._rejected:
            return None
        self._rejected = self.rejection = None
        self._in_flight, self._nonce, replaces = due, next(self._nonces), not self._sent.keys().isdisjoint(due.changed)
        self._sent.update(due.changed)
        for name in due.removed:
            del self._sent[name]
        return Response(str(current.version), self.type_url, self._nonce, due, replaces)

    def _due(self, current: VersionedResources) -> Difference | None:
        resources = current.resources
        if resources is self._settled:
            return None
        sent = self._sent
        # The same object needs no comparison: thousands of endpoints are a megabyte.
        other = compress(resources, map(is_not, map(sent.get, resources), resources.values()))
        wanted = {name: resources[name] for name in other if self._is_wildcard or name in self.names}
        changed = {name: packed for name, packed in wanted.items() if sent.get(name) != packed}
        removed = frozenset(sent.keys() - resources.keys())
        if changed or removed:
            return Difference(changed, removed)
        self._settled = resources
        return None

    def send_again(self) -> None:
        """Let ``next_response`` send all resources again."""
        self._sent, self._settled = dict.fromkeys(self._sent), None

    def retry(self) -> None:
        """Let ``next_response`` send rejected resources again. The cause, such as a port in use, may be gone."""
        self._rejected = self.rejection = None

    def is_acked(self, current: VersionedResources) -> bool:
        """Return whether Envoy subscribed to and acknowledged all of the server's resources of this type."""
        if self._in_flight is not None or not self._requested or self._due(current) is not None:
            return False
        return self._is_wildcard or self.names >= current.resources.keys()
