"""Retry policies: Envoy retries a call on another replica.

A call that may have reached a handler is retried only if its method has an ``idempotency_level`` in the proto, and then
once: it may itself be what kills its replicas. Clients retry too. Together they repeat a call once after a replica was
lost: Envoy does so in the client's first attempt, and :data:`NO_MORE_RETRIES` ends the client's attempts afterwards.
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
#: Header with the number of the client's attempts before this one, sent by gRPC's own retries, and its values.
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md#exposed-retry-metadata
PREVIOUS_ATTEMPTS_KEY, PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts", ("1", "2", "3", "4")
#: Trailer by which a server asks a gRPC client not to retry.
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
NO_MORE_RETRIES = ("grpc-retry-pushback-ms", "-1")
# The call can't have reached a handler: the connection was refused, or closed before the request was sent.
_NOT_PROCESSED = "connect-failure,refused-stream,reset-before-request"


def safe_retries() -> pb.RetryPolicy:
    """Return the policy of every call: retry if the call can't have reached a handler."""
    return _retry_on_another_host(_NOT_PROCESSED, attempts=3)


def lost_replica_retries() -> pb.RetryPolicy:
    """Return the policy of idempotent methods: retry once, also if the replica is lost before it begins to answer.

    A replica is lost if its connection closes, or if it answers that it shuts down before the call could finish. The
    response of a handler is never retried, whatever its status.
    """
    policy = _retry_on_another_host(f"{_NOT_PROCESSED},reset,retriable-headers", attempts=1)
    policy.retriable_headers.add(name="grpc-message", string_match=pb.StringMatcher(exact=SHUTTING_DOWN))
    return policy


def fallback_retries() -> pb.RetryPolicy:
    """Return the policy of calls that the proxy answers itself: retry while the proxy is restarted.

    These methods only read, so a retry is always safe. The backoff is jittered and half of these intervals on average:
    half a minute or so in total, unless the client's deadline comes first. On a machine whose cores are all busy, an
    actor takes more than ten seconds to restart.
    """
    return pb.RetryPolicy(
        retry_on=f"{_NOT_PROCESSED},reset",
        num_retries=UInt32Value(value=60),
        retry_back_off=pb.RetryPolicy.RetryBackOff(
            base_interval=Duration(nanos=50_000_000), max_interval=Duration(seconds=1)
        ),
    )


def _retry_on_another_host(retry_on: str, attempts: int) -> pb.RetryPolicy:
    # The retry budget of the cluster's circuit breaker limits the concurrent retries of a deployment.
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
