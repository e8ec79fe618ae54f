"""When Envoy sends a call once more, to another replica.

What a handler may have begun is repeated only if its proto says that it may be (``idempotency_level``).
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import SHUTTING_DOWN
from sdk._xds.packing import pack

#: Bytes of a request that Envoy keeps, so that it can send it once more; a longer one is passed on and not retried.
BUFFERED_BYTES = 1 << 20
# The call can't have reached a handler: the connection was refused, or broke before the request was sent.
_NOT_PROCESSED = "connect-failure,refused-stream,reset-before-request"


def safe_retries() -> pb.RetryPolicy:
    """Returns the policy of every call: it is retried when it can't have reached a handler."""
    return _retry_on_another_host(_NOT_PROCESSED, attempts=3)


def lost_replica_retries() -> pb.RetryPolicy:
    """Returns the policy of idempotent methods: also when the replica is lost before it has begun to answer.

    A replica is lost when its connection breaks, or when it says that it ends before the call could. What a handler
    answers is never retried, whatever its status.
    """
    policy = _retry_on_another_host(f"{_NOT_PROCESSED},reset,retriable-headers", attempts=3)
    policy.retriable_headers.add(name="grpc-message", string_match=pb.StringMatcher(exact=SHUTTING_DOWN))
    return policy


def fallback_retries() -> pb.RetryPolicy:
    """Returns the policy of what the proxy answers itself: a call waits while the proxy is being restarted.

    All of it only reads, so that a call may be repeated whatever became of it before. The pauses are random, half of
    these on average: some ten seconds in all, unless the client's deadline comes first.
    """
    return pb.RetryPolicy(
        retry_on=f"{_NOT_PROCESSED},reset",
        num_retries=UInt32Value(value=25),
        retry_back_off=pb.RetryPolicy.RetryBackOff(
            base_interval=Duration(nanos=50_000_000), max_interval=Duration(seconds=1)
        ),
    )


def _retry_on_another_host(retry_on: str, attempts: int) -> pb.RetryPolicy:
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
