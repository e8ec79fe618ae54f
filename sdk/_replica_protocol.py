"""Protocol between a replica and Envoy, in addition to gRPC over HTTP/1.1: health check and shutdown status."""

from __future__ import annotations

#: Path of Envoy's health check of a replica (GET, HTTP/1.1). gRPC calls are POST requests, so it hides no method.
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
HEALTH_CHECK_PATH = "/sdk.replica/alive"
#: Response to the health check. The event loop sends it however busy the replica is.
HEALTH_CHECK_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
#: Details of the UNAVAILABLE status of calls that a leaving replica ends when its grace period is over.
SHUTTING_DOWN = "the replica is shutting down"
