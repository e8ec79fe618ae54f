"""Protocol between Envoy and the servers behind it, in addition to gRPC over HTTP/1.1."""

from __future__ import annotations

#: Path of Envoy's health check of a replica (GET, HTTP/1.1). gRPC calls are POST requests, so it hides no method.
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
HEALTH_CHECK_PATH = "/sdk.replica/alive"
#: Response to the health check. The event loop sends it however busy the replica is.
HEALTH_CHECK_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
#: Path prefix of the health check: clients that call it reach no replica.
PRIVATE_PREFIX = "/sdk.replica/"
#: Path of the health check of a proxy for load balancers and Kubernetes (GET). Ray Serve's HTTP proxy has the same.
PROXY_HEALTH_PATH = "/-/healthz"
#: Details of the UNAVAILABLE status of calls that a leaving replica ends when its grace period is over.
SHUTTING_DOWN = "the replica is shutting down"
