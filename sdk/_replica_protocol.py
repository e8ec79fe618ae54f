"""Protocol between a wire server and Envoy or a caller, in addition to gRPC over HTTP/1.1."""

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
#: Path of the OpenAPI document of all services (GET).
OPENAPI_PATH = "/openapi.json"
#: Details of the UNAVAILABLE status of calls that a leaving replica ends when its grace period is over.
SHUTTING_DOWN = "the replica is shutting down"
#: Path of the first request of a caller in another replica, which, unlike Envoy, understands :data:`GOING_AWAY`. The
#: answer, that of a health check, means that the replica has accepted the connection.
CALLER_PATH = "/sdk.replica/caller"
#: First bytes of a caller's connection.
CALLER_PREFACE = f"GET {CALLER_PATH} HTTP/1.1\r\nhost: replica\r\n\r\n".encode()
#: Last bytes of a leaving replica on a caller's connection between two calls. A request that crosses them was not
#: processed, so the caller sends it to another replica.
GOING_AWAY = b"HTTP/1.1 503 Going Away\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
