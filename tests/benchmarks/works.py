"""The works to measure, and the servers that do each."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench_pb2 import Ask, Payload

OURS = "sdk"
BARE = "grpc.aio"
BARE_UVLOOP = "grpc.aio on uvloop"
ENVOY_BARE = "Envoy and grpc.aio"
SERVE = "Ray Serve"
SERVE_HAPROXY = "Ray Serve with HAProxy"

PAIR = (OURS, BARE)
ALL = (OURS, BARE, BARE_UVLOOP, ENVOY_BARE, SERVE, SERVE_HAPROXY)
# A bare server has no handles: it calls the next one by a stub.
WITH_HANDLES = (OURS, BARE, SERVE, SERVE_HAPROXY)

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Work:
    """One kind of call, and how many of them at a time.

    Attributes:
        name: Its name in the tables.
        method: Name of the RPC.
        messages: The request's messages.
        servers: Names of the servers that run it.
        unit: Of the count: calls, messages, or MB.
        per_call: Number of these units in one call.
        streams: Calls at a time on one connection.
        connections: Connections.
        metadata: Sent with each call.
        status: Name of the status code that each call ends with.
        response_bytes: Length of all response messages of a call, in bytes, with their prefixes.
        idle_connections: Number of idle connections that are open meanwhile.
        setting: Command that puts our server into the state for this work.
        quick: Whether the quick form measures it too.
        ping_pong: Whether each message waits for the answer to the one before. Then a Python client measures it, since
            h2load can't.
    """

    name: str
    method: str
    messages: tuple[Ask | Payload, ...]
    servers: tuple[str, ...] = PAIR
    unit: str = "calls"
    per_call: float = 1
    streams: int = 32
    connections: int = 1
    metadata: tuple[tuple[str, str], ...] = ()
    status: str = "OK"
    response_bytes: int = 0
    idle_connections: int = 0
    setting: dict[str, int] = field(default_factory=dict)
    quick: bool = False
    ping_pong: bool = False


SMALL = Ask(name="foo")
_SMALL_ANSWER = Payload(greeting="Hello foo")
_PING = Payload(greeting="ping")


def _length(message: Ask | Payload, size: int = 0) -> int:
    """Return the length of a message on the wire, with its prefix."""
    if isinstance(message, Payload):
        message = Payload(greeting=message.greeting, data=bytes(size))
    return len(message.SerializeToString()) + 5


def _unary(name: str, method: str = "Unary", up: int = 0, down: int = 0, **rest: object) -> Work:
    ask = Ask(name="foo", size=down, data=bytes(up))
    rest.setdefault("response_bytes", 0 if rest.get("status") else _length(_SMALL_ANSWER, down))
    if up or down:
        rest.setdefault("unit", "MB")
        rest.setdefault("per_call", (up + down) / 1e6)
    return Work(name, method, (ask,), **rest)  # type: ignore[arg-type]  # the fields of Work


def _inner(name: str, method: str, ask: Ask, size: int = 0, streams: int = 32) -> Work:
    """Return the work of a handler that calls another deployment."""
    return Work(name, method, (ask,), WITH_HANDLES, streams=streams, response_bytes=_length(_SMALL_ANSWER, size))


def _streams(
    label: str, count: int, size: int, streams: int, unit: str, servers: tuple[str, ...], quick: bool
) -> list[Work]:
    units = count if unit == "messages" else count * size / 1e6
    payload = Payload(data=bytes(size)) if size else _PING
    return [
        Work(
            f"server streaming, {label}",
            "Download",
            (Ask(name="foo", size=size, count=count),),
            servers,
            unit,
            units,
            streams,
            response_bytes=count * _length(_SMALL_ANSWER, size),
            quick=quick,
        ),
        Work(
            f"client streaming, {label}",
            "Upload",
            (payload,) * count,
            PAIR,
            unit,
            units,
            streams,
            response_bytes=_length(Ask(count=count)),
            quick=quick,
        ),
    ]


WORKS: tuple[Work, ...] = (
    _unary("unary, 1 stream", servers=ALL, streams=1, quick=True),
    _unary("unary, 8 streams", streams=8),
    _unary("unary, 32 streams", servers=ALL, quick=True),
    _unary("unary, 256 streams", streams=256),
    _unary("unary, 16 connections of 1 stream", streams=1, connections=16),
    _unary("unary, 16 connections of 32 streams", servers=ALL, connections=16),
    _unary("unary, 10 KB up", up=10 * KIB),
    _unary("unary, 10 KB down", down=10 * KIB),
    _unary("unary, 1 MB up", up=MIB, streams=4, quick=True),
    _unary("unary, 1 MB down", down=MIB, streams=4, quick=True),
    _unary("unary, 10 MB up", up=10 * MIB, streams=2),
    _unary("unary, 10 MB down", down=10 * MIB - KIB, streams=2),
    *_streams("small messages", 1000, 0, 8, "messages", ALL, True),
    *_streams("64 KB messages", 100, 64 * KIB, 4, "MB", PAIR, False),
    Work("bidi ping-pong, 1 stream", "PingPong", (_PING,), PAIR, "round trips", 500, 1, ping_pong=True, quick=True),
    Work("bidi ping-pong, 32 streams", "PingPong", (_PING,), PAIR, "round trips", 100, 32, ping_pong=True),
    _unary("sync handler", "UnarySync"),
    _unary("context and trailing metadata", "WithContext", metadata=(("traceparent", "00-0af7651916cd43dd-01"),)),
    _unary("handler awaits a handle", "ThroughHandle", servers=WITH_HANDLES, quick=True),
    _unary("handler awaits a handle, 1 stream", "ThroughHandle", servers=WITH_HANDLES, streams=1, quick=True),
    _inner("handler awaits 8 calls of a handle", "ThroughHandle", Ask(name="foo", count=8)),
    _inner("handler awaits a chain of two deployments", "Chain", Ask(name="foo", count=3)),
    _inner("handler awaits 1 MB from a handle", "ThroughHandle", Ask(name="foo", size=MIB), MIB, streams=4),
    Work(
        "handler reads small messages from a handle",
        "DownloadThroughHandle",
        (Ask(name="foo", count=1000),),
        WITH_HANDLES,
        "messages",
        1000,
        8,
        response_bytes=1000 * _length(_SMALL_ANSWER),
    ),
    _unary("error", "Fails", status="NOT_FOUND", response_bytes=5),  # gRPC sends the message of a failed call too
    _unary("deadline of 20 ms", "Sleeps", status="DEADLINE_EXCEEDED", metadata=(("grpc-timeout", "20m"),)),
    _unary("with 1,000 idle connections", idle_connections=1000),
    _unary("1,000 busy connections", streams=1, connections=1000),
    _unary("2 replicas", servers=(OURS,), setting={"replicas": 2}),
    _unary("4 replicas", servers=(OURS,), setting={"replicas": 4}),
    _unary("1 replica again", servers=(OURS,), setting={"replicas": 1}),
    _unary("100 applications", servers=(OURS,), setting={"apps": 100}),
    _unary("1,000 applications", servers=(OURS,), setting={"apps": 1000}),
)
