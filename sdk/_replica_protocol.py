"""What a replica and the Envoy before it agree on, beyond gRPC and HTTP."""

from __future__ import annotations

#: What Envoy asks a replica to see whether it serves (GET, HTTP/1.1). A gRPC call is a
#: POST, so no method is in its way.
HEALTH_CHECK_PATH = "/sdk.replica/alive"
#: The answer: from the event loop, and from nothing else. How busy the replica is does not matter.
HEALTH_CHECK_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
#: Details of the status (UNAVAILABLE) with which a replica that leaves ends the calls that have outlived its grace.
SHUTTING_DOWN = "the replica is shutting down"
