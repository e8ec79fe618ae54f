"""Names and rules of OpenTelemetry's stable conventions for gRPC.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. Written here, because ``opentelemetry-semantic-conventions`` has
the names of a later version only as unstable ones, and renames them.
"""

from __future__ import annotations

import sys

SYSTEM, GRPC = "rpc.system.name", "grpc"
METHOD, METHOD_ORIGINAL = "rpc.method", "rpc.method_original"
STATUS_CODE, ERROR_TYPE = "rpc.status_code", "error.type"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"
PEER_ADDRESS, PEER_PORT = "network.peer.address", "network.peer.port"
#: Value of :data:`METHOD` for all methods that a server does not have: a client can name any.
OTHER = "_OTHER"

#: An event for each message, of an earlier version of the conventions; the stable one has none.
MESSAGE_EVENT, MESSAGE_TYPE, MESSAGE_ID = "rpc.message", "rpc.message.type", "rpc.message.id"
MESSAGE_SIZE = "rpc.message.uncompressed_size"

#: Names of the status codes that a server reports as its errors; for a client each but ``OK`` is one.
SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

#: Metric of a server's calls, with upper bounds of its buckets in seconds.
CALL_DURATION = "rpc.server.call.duration"
CALL_DURATION_TEXT = "Measures the duration of an incoming Remote Procedure Call (RPC)."
DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


def scope() -> tuple[str, str]:
    """Return the name and the version of what makes the spans and the metric."""
    version: str = sys.modules["sdk"].__version__  # of the package above, which every import of this one has imported
    return "ray-grpc-sdk", version


def server_attributes(path: str, status: str) -> dict[str, str]:
    """Return the attributes of the metric.

    Args:
        path: Path of a method; empty for methods that the server does not have.
        status: Name of a status code.

    Example:
        >>> server_attributes("/pkg.S/Get", "INTERNAL")["error.type"]
        'INTERNAL'
    """
    attributes = {SYSTEM: GRPC, METHOD: path[1:] or OTHER, STATUS_CODE: status}
    return {**attributes, ERROR_TYPE: status} if status in SERVER_ERRORS else attributes


def split_target(target: str) -> tuple[str, int | None]:
    """Return the address and the port that a gRPC target names; for a target of several, all of it.

    https://grpc.github.io/grpc/core/md_doc_naming.html

    Example:
        >>> split_target("dns://1.2.3.4/grpc.io:50051"), split_target("unix:/run/a.sock")
        (('grpc.io', 50051), ('/run/a.sock', None))
        >>> split_target("zk://zookeeper:2181/my-server"), split_target("[::1]:9000")
        (('zk://zookeeper:2181/my-server', None), ('::1', 9000))
    """
    scheme, separator, rest = target.partition(":")
    if separator and scheme == "unix":
        return rest.removeprefix("//"), None
    if separator and scheme in ("dns", "ipv4", "ipv6"):
        name = rest.rpartition("/")[2] if rest.startswith("//") else rest
    elif "://" in target:
        return target, None
    else:
        name = target
    if "," in name:
        return target, None
    host, colon, port = name.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        host, port = name, ""
    return host.strip("[]"), int(port) if port else None
