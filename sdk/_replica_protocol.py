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
#: Paths of the probes of a proxy (GET): it answers; and it also has an application, and is not drained.
PROXY_LIVE_PATH, PROXY_READY_PATH = "/-/live", "/-/ready"
#: Path of the OpenAPI document of all services (GET).
OPENAPI_PATH = "/openapi.json"
#: Path of the page of documentation (GET), and beginning of the paths of its files.
DOCS_PATH, PAGES_PREFIX = "/docs", "/-/pages/"
#: Path of the console (GET), and beginning of the paths of what it shows.
CONSOLE_PATH, CONSOLE_PREFIX = "/console", "/-/console/"
#: Paths of the services with their types, and of the state of the ingress (GET).
CATALOG_PATH, INGRESS_STATE_PATH = f"{CONSOLE_PREFIX}services", f"{CONSOLE_PREFIX}cluster"
#: Details of the UNAVAILABLE status of calls that a leaving replica ends when its grace period is over.
SHUTTING_DOWN = "the replica is shutting down"
#: Details of the UNAVAILABLE status of calls whose replica was killed: no connection to that replica can be used again.
REPLICA_DIED = "The replica died before its answer was complete."
#: Path of the first request of a caller in another replica, which, unlike Envoy, understands :data:`GOING_AWAY`. The
#: answer, that of a health check, means that the replica has accepted the connection.
CALLER_PATH = "/sdk.replica/caller"
#: First bytes of a caller's connection.
CALLER_PREFACE = f"GET {CALLER_PATH} HTTP/1.1\r\nhost: replica\r\n\r\n".encode()


def caller_preface(secret: str) -> bytes:
    """Return the first bytes of a connection of another node.

    Args:
        secret: The secret by which a replica knows it; empty without one.
    """
    line = f"{NODE_SECRET_HEADER}: {secret}\r\n".encode() if secret else b""
    return CALLER_PREFACE[:-2] + line + b"\r\n"


#: Last bytes of a leaving replica on a caller's connection between two calls. A request that crosses them was not
#: processed, so the caller sends it to another replica.
GOING_AWAY = b"HTTP/1.1 503 Going Away\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
#: Header with the claims of the client's token, which Envoy has verified: base64url of a JSON object, without padding.
TOKEN_HEADER = "x-sdk-token-claims"
#: Header with the name of the client's API key, which Envoy has verified.
API_KEY_HEADER = "x-sdk-api-key-name"
#: Headers that say who calls. Envoy sets them, and removes what a client sends under these names.
IDENTITY_HEADERS = (TOKEN_HEADER, API_KEY_HEADER)
#: Header with the secret by which a replica knows connections of other nodes, where Ray has tokens.
NODE_SECRET_HEADER = "x-sdk-node-secret"
