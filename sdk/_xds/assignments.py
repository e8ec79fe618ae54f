"""The endpoints of a deployment as Envoy's ClusterLoadAssignment, encoded in parts: a change encodes one or two again.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/endpoint/v3/endpoint.proto
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from google.protobuf.struct_pb2 import Struct, Value

from sdk._gen import envoy_pb2 as pb
from sdk._xds.listener import socket_address
from sdk._xds.packing import ENDPOINT_TYPE, Resource, field_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sdk._xds.endpoints import Endpoint, Part

    Address = str | tuple[str, int]

#: Metadata of the endpoints that are reached over TCP.
DISTANT = Struct(fields={"distant": Value(bool_value=True)})
_LOOPBACK = "127.0.0.1"
#: Namespace and key in the metadata of an endpoint with what the hash ring reads in place of its address.
_HASH_KEY = ("envoy.lb", "hash_key")
_ENDPOINTS_FIELD = pb.ClusterLoadAssignment.DESCRIPTOR.fields_by_name["endpoints"].number


@dataclass(frozen=True, slots=True)
class _EncodedPart:
    """A part of the endpoints.

    Attributes:
        part: The endpoints.
        hosts: Each of them as a field of ``LocalityLbEndpoints``.
        data: All of these.
        addresses: Their addresses.
        problems: Reasons why Envoy would reject them.
    """

    part: Part
    hosts: tuple[bytes, ...]
    data: bytes
    addresses: tuple[Address, ...]
    problems: tuple[str, ...]


class AssignmentBuilder:
    """Builds the endpoints of one cluster, again and again, for one proxy.

    Args:
        name: Name of the cluster.
        node_id: Ray's id of the proxy's node: it reaches replicas there by their unix sockets or over loopback, all
            others over the network. None if every endpoint is as it has to be.
        marks_distant: Whether Envoy connects to endpoints over TCP in another way, by their metadata. Without the mark
            a message of thousands of endpoints is little more than half as long.

    Attributes:
        packed: The endpoints, packed.
        problems: Reasons why Envoy would reject them.
    """

    def __init__(self, name: str, node_id: str | None, *, marks_distant: bool) -> None:
        self._name, self._node_id, self._marks_distant = name, node_id, marks_distant
        self._parts: tuple[Part, ...] = ()
        # By the identity of the part, which the value keeps alive: a comparison would cost as much as the encoding.
        self._encoded: dict[int, _EncodedPart] = {}
        self._addresses: Counter[Address] = Counter()
        self.packed = self._pack(())
        self.problems: tuple[str, ...] = ()

    def build(self, parts: tuple[Part, ...]) -> bool:
        """Build the endpoints. Return whether they differ from those before."""
        if parts == self._parts:
            return False
        present = set(map(id, parts))
        gone = [each for key, each in self._encoded.items() if key not in present]
        # A part has some 64 endpoints, of which a change concerns one. To encode it takes as long as all the rest.
        known = {endpoint: host for each in gone for endpoint, host in zip(each.part, each.hosts, strict=True)}
        encoded = {id(part): self._encoded.get(id(part)) or self._encode(part, known) for part in parts}
        for key in encoded.keys() - self._encoded.keys():
            self._addresses.update(encoded[key].addresses)
        for part in gone:
            for address in part.addresses:
                self._addresses[address] -= 1
                if not self._addresses[address]:
                    del self._addresses[address]
        self._parts, self._encoded = parts, encoded
        if len(self._addresses) == sum(map(len, parts)):
            hosts = tuple(each.data for each in encoded.values())
        else:
            hosts = (self._encode(self._without_repeated_addresses(), {}).data,)
        self.packed = self._pack(hosts)
        self.problems = tuple(problem for each in encoded.values() for problem in each.problems)
        return True

    def _without_repeated_addresses(self) -> tuple[Endpoint, ...]:
        # If a replica takes over the port of another one, the table contains both for a moment: send the address once.
        by_address = {self._address(endpoint): endpoint for part in self._parts for endpoint in part}
        return tuple(by_address.values())

    def _pack(self, hosts: tuple[bytes, ...]) -> Resource:
        # A message may be encoded field by field: https://protobuf.dev/programming-guides/encoding/#last-one-wins
        head = pb.ClusterLoadAssignment(cluster_name=self._name).SerializeToString()
        if hosts:
            head += field_head(_ENDPOINTS_FIELD, sum(map(len, hosts)))
        return Resource(ENDPOINT_TYPE, (head, *hosts))

    def _encode(self, part: Sequence[Endpoint], known: Mapping[Endpoint, bytes]) -> _EncodedPart:
        addresses = tuple(map(self._address, part))
        pairs = zip(part, addresses, strict=True)
        hosts = tuple(known.get(endpoint) or self._host(endpoint, address) for endpoint, address in pairs)
        return _EncodedPart(tuple(part), hosts, b"".join(hosts), addresses, tuple(_problems(self._name, addresses)))

    def _host(self, endpoint: Endpoint, address: Address) -> bytes:
        # The id as metadata would cost Envoy three times as much for each change of thousands of endpoints.
        host = pb.LbEndpoint(endpoint=pb.Endpoint(hostname=endpoint.replica_id))
        if address != (endpoint.host, endpoint.port):
            # The ring hashes the address, which differs from proxy to proxy: each one reaches the replicas on its node
            # by a unix socket or loopback. This key replaces it.
            host_part = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
            namespace, key = _HASH_KEY
            host.metadata.filter_metadata[namespace].fields[key].string_value = f"{host_part}:{endpoint.port}"
        if isinstance(address, str):
            host.endpoint.address.pipe.path = address
        else:
            host.endpoint.address.CopyFrom(socket_address(*address))
            if self._marks_distant:
                host.metadata.filter_metadata["envoy.transport_socket_match"].CopyFrom(DISTANT)
        return pb.LocalityLbEndpoints(lb_endpoints=[host]).SerializeToString(deterministic=True)

    def _address(self, endpoint: Endpoint) -> Address:
        # Compared with loopback TCP, a unix socket saves a tenth of Envoy's CPU time per call and a fifth of the
        # replica's.
        is_local = self._node_id is None or endpoint.node_id == self._node_id
        if is_local and endpoint.socket:
            return f"@{endpoint.socket}"
        return (_LOOPBACK if is_local and self._node_id is not None else endpoint.host, endpoint.port)


def _problems(name: str, addresses: Iterable[Address]) -> Iterator[str]:
    for address in addresses:
        if isinstance(address, tuple):
            yield from address_problems(name, *address)


def address_problems(name: str, host: str, port: int) -> Iterator[str]:
    """Yield the reasons why Envoy would reject the address of an endpoint.

    Args:
        name: Name of the endpoints.
        host: The host.
        port: The port.
    """
    if not _is_ip(host):
        yield f"endpoints {name!r} contain {host!r}, which is not an IP address"
    if not 0 < port < 65536:
        yield f"endpoints {name!r} contain port {port}"


@lru_cache(maxsize=4096)
def _is_ip(text: str) -> bool:
    # Cached: thousands of endpoints share the addresses of tens of nodes, and parsing took most of a check's time.
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
