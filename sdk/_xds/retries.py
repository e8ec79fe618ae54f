"""Retry policies: Envoy retries a call on another replica.

A call that may have reached a handler is retried only if its method has an ``idempotency_level`` in the proto.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import SHUTTING_DOWN
from sdk._xds.packing import pack

#: Bytes of a request that Envoy buffers for a retry. A longer request is forwarded and not retried.
BUFFERED_BYTES = 1 << 20
# The call can't have reached a handler: the connection was refused, or closed before the request was sent.
_NOT_PROCESSED = "connect-failure,refused-stream,reset-before-request"


def safe_retries() -> pb.RetryPolicy:
    """Return the policy of every call: retry if the call can't have reached a handler."""
    return _retry_on_another_host(_NOT_PROCESSED, attempts=3)


def lost_replica_retries() -> pb.RetryPolicy:
    """Return the policy of idempotent methods: retry also if the replica is lost before it begins to answer.

    A replica is lost if its connection closes, or if it answers that it shuts down before the call could finish. The
    response of a handler is never retried, whatever its status.
    """
    policy = _retry_on_another_host(f"{_NOT_PROCESSED},reset,retriable-headers", attempts=3)
    policy.retriable_headers.add(name="grpc-message", string_match=pb.StringMatcher(exact=SHUTTING_DOWN))
    return policy


def fallback_retries() -> pb.RetryPolicy:
    """Return the policy of calls that the proxy answers itself: retry while the proxy is restarted.

    These methods only read, so a retry is always safe. The backoff is jittered and half of these intervals on average:
    ten seconds or so in total, unless the client's deadline comes first.
    """
    return pb.RetryPolicy(
        retry_on=f"{_NOT_PROCESSED},reset",
        num_retries=UInt32Value(value=25),
        retry_back_off=pb.RetryPolicy.RetryBackOff(
            base_interval=Duration(nanos=50_000_000), max_interval=Duration(seconds=1)
        ),
    )


def _retry_on_another_host(retry_on: str, attempts: int) -> pb.RetryPolicy:
    # max_retries of the cluster's circuit breaker limits the concurrent retries of a deployment.
    previous_hosts = pb.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(pb.PreviousHostsPredicate())
    )
    return pb.RetryPolicy(
        retry_on=retry_on,
        num_retries=UInt32Value(value=attempts),
        retry_host_predicate=[previous_hosts],
        # With fewer attempts, one call in fifty was retried on the replica that it came from: a hash ring of two
        # replicas often has the same one several times in a row.
        host_selection_retry_max_attempts=20,
    )
