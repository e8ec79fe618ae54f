"""When Envoy sends a call once more, to another replica.

What a handler may have begun is repeated only if its proto says that it may be (``idempotency_level``).
"""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import UInt32Value

from sdk.gen import envoy_pb2 as pb
from sdk.wire.contract import SHUTTING_DOWN
from sdk.xds.typed import pack

#: Bytes of a request that Envoy keeps, so that it can send it once more; a longer one is passed on and not retried.
BUFFERED_BYTES = 1 << 20
# The call can't have reached a handler: the connection was refused, or broke before the request was sent.
_NEVER_ARRIVED = "connect-failure,refused-stream,reset-before-request"


def safe_retries() -> pb.RetryPolicy:
    """Returns the policy of every call: it is retried when it can't have reached a handler."""
    return _elsewhere(_NEVER_ARRIVED, attempts=3)


def lost_replica_retries() -> pb.RetryPolicy:
    """Returns the policy of idempotent methods: also when the replica is lost before it has begun to answer.

    A replica is lost when its connection breaks, or when it says that it ends before the call could. What a handler
    answers is never retried, whatever its status.
    """
    policy = _elsewhere(f"{_NEVER_ARRIVED},reset,retriable-headers", attempts=3)
    policy.retriable_headers.add(name="grpc-message", string_match=pb.StringMatcher(exact=SHUTTING_DOWN))
    return policy


def _elsewhere(retry_on: str, attempts: int) -> pb.RetryPolicy:
    # How many calls of a deployment may be retried at a time: max_retries of its cluster.
    previous_hosts = pb.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(pb.PreviousHostsPredicate())
    )
    return pb.RetryPolicy(
        retry_on=retry_on,
        num_retries=UInt32Value(value=attempts),
        retry_host_predicate=[previous_hosts],
        # With a few, one call in fifty ended on the replica that it came from: a model's ring of two replicas often has
        # the same one several times in a row.
        host_selection_retry_max_attempts=20,
    )
