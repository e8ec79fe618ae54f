"""The endpoints of a deployment, in parts that tables share."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, overload
from zlib import crc32

# Average number of endpoints in a part. A change copies one part, and the list of the parts.
_PART_SIZE = 64


class Endpoint(NamedTuple):
    """Address of one replica's wire server.

    Attributes:
        replica_id: Ray Serve's id of the replica, unique in the cluster.
        host: IP address of the replica's node.
        port: TCP port; the same on that address and on the node's loopback address.
        node_id: Ray's id of the node.
        socket: Name of its abstract unix socket (unix(7)) for the proxy of the same node, without the leading NUL byte;
            empty if it has none, and the loopback address is used.
    """

    replica_id: str
    host: str
    port: int
    node_id: str = ""
    socket: str = ""


Part = tuple[Endpoint, ...]


class Endpoints(Sequence[Endpoint]):
    """Endpoints, sorted and immutable. A changed copy shares all parts but one or two with the original.

    The content alone decides where a part begins: at each endpoint whose id has a certain checksum. So equal endpoints
    have equal parts whatever the changes that led to them, and a comparison skips the parts that both share.

    Args:
        endpoints: The endpoints, in any order.

    Attributes:
        parts: The endpoints in parts, none of them empty.

    Example:
        >>> one = Endpoints([Endpoint("b", "10.0.0.1", 1), Endpoint("a", "10.0.0.1", 2)])
        >>> [endpoint.replica_id for endpoint in one.change(added=[Endpoint("c", "10.0.0.1", 3)], removed=one[:1])]
        ['b', 'c']
    """

    __slots__ = ("_size", "parts")

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self._set(tuple(_split(sorted(endpoints))))

    def _set(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def change(self, *, added: Iterable[Endpoint] = (), removed: Iterable[Endpoint] = ()) -> Endpoints:
        """Return a copy without the removed endpoints, and with the added ones.

        Raises:
            ValueError: A removed endpoint is not among them, or an added one is.
        """
        parts = self.parts
        for endpoint in removed:
            parts = _remove(parts, endpoint)
        for endpoint in added:
            parts = _add(parts, endpoint)
        return _of_parts(parts)

    def differences(self, other: Endpoints) -> tuple[list[Endpoint], list[Endpoint]]:
        """Return the endpoints that another value has in addition, and those that it does not have."""
        before, after = set(map(id, self.parts)), set(map(id, other.parts))
        old = set(chain.from_iterable(part for part in self.parts if id(part) not in after))
        new = set(chain.from_iterable(part for part in other.parts if id(part) not in before))
        return sorted(new - old), sorted(old - new)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Endpoint]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, index: int) -> Endpoint: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Endpoint, ...]: ...
    def __getitem__(self, index: int | slice) -> Endpoint | tuple[Endpoint, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Endpoints):
            return self.parts == other.parts
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Endpoints({list(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # In columns, and with the sizes of the parts: four times as fast as one object for each endpoint.
        return _load, (tuple(map(len, self.parts)), *zip(*self, strict=True))


def _load(sizes: tuple[int, ...], *columns: tuple[object, ...]) -> Endpoints:
    rows = map(Endpoint._make, zip(*columns, strict=True))
    return _of_parts(tuple(tuple(islice(rows, size)) for size in sizes))


def _of_parts(parts: tuple[Part, ...]) -> Endpoints:
    endpoints = Endpoints.__new__(Endpoints)
    endpoints._set(parts)
    return endpoints


def _begins_part(endpoint: Endpoint) -> bool:
    return crc32(endpoint.replica_id.encode("utf-8", "surrogatepass")) % _PART_SIZE == 0


def _split(endpoints: Sequence[Endpoint]) -> Iterator[Part]:
    """Yield the parts of sorted endpoints."""
    begins = [index for index, endpoint in enumerate(endpoints) if index and _begins_part(endpoint)]
    for begin, end in zip([0, *begins], [*begins, len(endpoints)], strict=True):
        if begin < end:
            yield tuple(endpoints[begin:end])


def _find(parts: tuple[Part, ...], endpoint: Endpoint) -> int:
    """Return the index of the last part that begins at or before an endpoint; -1 if none does."""
    return bisect_right(parts, endpoint, key=lambda part: part[0]) - 1


def _add(parts: tuple[Part, ...], endpoint: Endpoint) -> tuple[Part, ...]:
    at = _find(parts, endpoint)
    if at < 0 and parts and not _begins_part(parts[0][0]):
        at = 0
    region = list(parts[at]) if at >= 0 else []
    insort(region, endpoint)
    place = bisect_left(region, endpoint)
    if region[place + 1 : place + 2] == [endpoint]:
        raise ValueError(f"{endpoint.replica_id!r} is there already")
    return (*parts[: max(at, 0)], *_split(region), *parts[at + 1 :])


def _remove(parts: tuple[Part, ...], endpoint: Endpoint) -> tuple[Part, ...]:
    at = _find(parts, endpoint)
    part = parts[at] if at >= 0 else ()
    place = bisect_left(part, endpoint)
    if part[place : place + 1] != (endpoint,):
        raise ValueError(f"{endpoint.replica_id!r} is not there")
    rest = part[:place] + part[place + 1 :]
    first = at
    if place == 0 and at > 0:  # the rest continues the part before
        first, rest = at - 1, parts[at - 1] + rest
    return (*parts[:first], *_split(rest), *parts[at + 1 :])
