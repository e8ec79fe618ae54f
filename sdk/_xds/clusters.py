"""Clusters and endpoints: the replicas of a deployment, and how Envoy balances calls over them.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/cluster.proto
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import HEALTH_CHECK_PATH
from sdk._xds.access_log import COLLECTOR, COLLECTOR_TIMEOUT, NAMESPACE, NO_REPLICA
from sdk._xds.assignments import DISTANT
from sdk._xds.ext_authz import GATE_CLUSTER
from sdk._xds.listener import MAX_HEADERS, MAX_HEADERS_KIB, ads_source
from sdk._xds.open_files import max_connections
from sdk._xds.packing import pack
from sdk._xds.tls import collector_transport_socket, node_transport_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdk._otel.otlp import Collector
    from sdk._xds.listener import ListenerConfig

FALLBACK_CLUSTER = "fallback"
# Percent of a cluster's calls in flight that may be retries: half of them are on one of two replicas, and are retried
# when it dies.
_HALF, _ALL = pb.Percent(value=50), pb.Percent(value=100)
_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Percent of the average load that a replica may have before a model's calls overflow to the next replica.
# https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/load_balancers
_HASH_BALANCE_FACTOR = 125
# Most KiB that a replica adds to the client's request id, which may fill the request's metadata: 64 KiB of metadata in
# base64 and a status message. Envoy would count a larger response as a failure of the replica and eject it for a while.
_RESPONSE_EXTRA_KIB = 104


def cluster_name(application: str, deployment: str) -> str:
    """Return the name of a deployment's cluster and of its endpoints. Distinct for distinct pairs."""
    return f"{quote(application, safe='')}#{quote(deployment, safe='')}"


def affinity_cluster_name(application: str, deployment: str) -> str:
    """Return the name of the cluster with model affinity, over the same endpoints."""
    return cluster_name(application, deployment) + "#model"


def deployment_clusters(application: str, deployment: str, node_secrets: str = "") -> Iterator[pb.Cluster]:
    """Yield a deployment's two clusters: one balances by load, one by model id.

    Args:
        application: Name of its application.
        deployment: Its name.
        node_secrets: Path of the folder with the SDS files for connections to other nodes; empty without TLS.
    """
    name = cluster_name(application, deployment)
    by_load, by_model = pb.Cluster(), pb.Cluster()
    for cluster in by_load, by_model:
        cluster.CopyFrom(_replica_cluster(node_secrets))
        fields = cluster.metadata.filter_metadata[NAMESPACE].fields
        fields["application"].string_value, fields["deployment"].string_value = application, deployment
        cluster.eds_cluster_config.service_name = name
    by_load.name = name
    by_load.lb_policy = pb.Cluster.LEAST_REQUEST
    by_load.health_checks.append(_health_check(interval_ms=750, misses=1, idle_s=3))
    yield by_load
    by_model.name = affinity_cluster_name(application, deployment)
    by_model.lb_policy = pb.Cluster.RING_HASH
    # Loading a model may block a replica's event loop. If its calls moved to the next replica meanwhile, that one would
    # load the model too, and then the next. They move after 10 to 12 s without an answer.
    by_model.health_checks.append(_health_check(interval_ms=2000, misses=4, idle_s=10))
    by_model.common_lb_config.consistent_hashing_lb_config.hash_balance_factor.value = _HASH_BALANCE_FACTOR
    yield by_model


def fallback_cluster(config: ListenerConfig) -> pb.Cluster:
    """Return the cluster of the proxy's wire server, which answers calls without a route."""
    cluster = unix_cluster(FALLBACK_CLUSTER, config.fallback_socket, _http1())
    # The access log has it in place of a replica's id. Without it, it would have the path of the socket.
    cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.hostname = NO_REPLICA
    cluster.circuit_breakers.CopyFrom(_circuit_breakers(_ALL))
    return cluster


def gate_cluster(config: ListenerConfig) -> pb.Cluster:
    """Return the cluster of the proxy's ext_authz server."""
    cluster = unix_cluster(GATE_CLUSTER, config.gate_socket)
    cluster.circuit_breakers.CopyFrom(_circuit_breakers(_ALL))
    return cluster


def unix_cluster(name: str, path: str, protocol: pb.HttpProtocolOptions | None = None) -> pb.Cluster:
    """Return the cluster of a server that listens on a unix socket.

    Args:
        name: Name of the cluster.
        path: Path of the socket.
        protocol: Protocol of the connections; None for HTTP/2.
    """
    return _server_cluster(name, pb.Address(pipe=pb.Pipe(path=path)), protocol)


def _server_cluster(name: str, address: pb.Address, protocol: pb.HttpProtocolOptions | None = None) -> pb.Cluster:
    host = pb.LbEndpoint(endpoint=pb.Endpoint(address=address))
    return pb.Cluster(
        name=name,
        type=pb.Cluster.STATIC,
        connect_timeout=Duration(seconds=1),
        typed_extension_protocol_options={_PROTOCOL_OPTIONS: pack(protocol or _http2())},
        load_assignment=pb.ClusterLoadAssignment(
            cluster_name=name, endpoints=[pb.LocalityLbEndpoints(lb_endpoints=[host])]
        ),
    )


def collector_cluster(collector: Collector) -> pb.Cluster:
    """Return the cluster of a collector that takes the access log by OTLP.

    Args:
        collector: The collector. Its name may have several addresses; Envoy connects to the first that accepts.
    """
    protocol = _http1() if collector.path else _http2()
    # Envoy's access log does not apply the timeout of a gRPC service (findings/envoy_otlp_log_timeout.sh). Without an
    # end, the requests to a collector that hangs stay open for as long as it does.
    protocol.common_http_protocol_options.max_stream_duration.CopyFrom(COLLECTOR_TIMEOUT)
    address = pb.Address(socket_address=pb.SocketAddress(address=collector.host, port_value=collector.port))
    cluster = _server_cluster(COLLECTOR, address, protocol)
    cluster.type = pb.Cluster.LOGICAL_DNS
    cluster.dns_lookup_family = pb.Cluster.ALL
    # Calls are served meanwhile, and if the name does not exist.
    cluster.wait_for_warm_on_init.value = False
    cluster.connect_timeout.FromSeconds(5)
    if collector.ca is not None:
        cluster.transport_socket.CopyFrom(collector_transport_socket(collector))
    return cluster


@lru_cache(maxsize=1)
def _replica_cluster(node_secrets: str) -> pb.Cluster:
    # Shared by all deployments. Copying it is ten times as fast as building it, and there may be thousands.
    matches = []
    if node_secrets:
        tls = node_transport_socket(node_secrets)
        matches.append(pb.Cluster.TransportSocketMatch(name="tls", match=DISTANT, transport_socket=tls))
    return pb.Cluster(
        transport_socket_matches=matches,
        type=pb.Cluster.EDS,
        eds_cluster_config=pb.Cluster.EdsClusterConfig(eds_config=ads_source()),
        connect_timeout=Duration(seconds=1),
        circuit_breakers=_circuit_breakers(_HALF),
        outlier_detection=_outlier_detection(),
        # Otherwise Envoy keeps a removed replica for as long as its health check succeeds.
        ignore_health_on_host_removal=True,
        # Unhealthy replicas get no calls while at least 1 % are healthy. If none is, all get calls as if all were
        # healthy: a replica that is only busy answers later, and clients have their own deadlines.
        # https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold
        common_lb_config=pb.Cluster.CommonLbConfig(healthy_panic_threshold=pb.Percent(value=1)),
        typed_extension_protocol_options={_PROTOCOL_OPTIONS: pack(_http1())},
        upstream_bind_config=pb.BindConfig(socket_options=[_reset_on_close()]),
        # A node that loses power sends no RST. Without keepalive its calls would hang until their deadline, if any.
        upstream_connection_options=pb.UpstreamConnectionOptions(
            tcp_keepalive=pb.TcpKeepalive(
                keepalive_time=UInt32Value(value=10),
                keepalive_interval=UInt32Value(value=5),
                keepalive_probes=UInt32Value(value=3),
            )
        ),
    )


def _http1() -> pb.HttpProtocolOptions:
    """Return the protocol of wire servers: HTTP/1.1 with trailers."""
    return pb.HttpProtocolOptions(
        common_http_protocol_options=pb.CoreHttpProtocolOptions(
            max_headers_count=UInt32Value(value=MAX_HEADERS),
            max_response_headers_kb=UInt32Value(value=MAX_HEADERS_KIB + _RESPONSE_EXTRA_KIB),
        ),
        explicit_http_config=pb.HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=pb.Http1ProtocolOptions(enable_trailers=True)
        ),
    )


def _http2() -> pb.HttpProtocolOptions:
    """Return the protocol of gRPC servers."""
    return pb.HttpProtocolOptions(
        explicit_http_config=pb.HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=pb.Http2ProtocolOptions())
    )


def _reset_on_close() -> pb.SocketOption:
    """Return the socket option that makes Envoy close a TCP connection with RST (SO_LINGER with a timeout of 0).

    Envoy closes the connection when a client cancels. A FIN is queued behind all bytes that were sent, so a handler
    that does not read would notice it only when the kernel gives up, after some minutes. An RST overtakes them.
    See SO_LINGER in socket(7): https://man7.org/linux/man-pages/man7/socket.7.html
    """
    return pb.SocketOption(
        description="close by a reset",
        level=socket.SOL_SOCKET,
        name=socket.SO_LINGER,
        buf_value=struct.pack("ii", 1, 0),  # struct linger: on, 0 seconds
    )


@lru_cache
def _health_check(*, interval_ms: int, misses: int, idle_s: int) -> pb.HealthCheck:
    """Return the health check that finds replicas whose connections are open but which do not answer.

    Such a replica is stopped, or its event loop hangs. It gets no new calls after at most the interval and a second for
    each allowed miss. Its calls in flight stay: it may only be busy, in a handler that blocks the loop, and will answer
    them. A check costs Envoy 20 µs and the replica 10 µs.
    https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/health_checking

    Args:
        interval_ms: Milliseconds from an answer to the next check. Envoy takes this interval from a cluster's first
            call on, and never returns to ``idle_s``.
        misses: Number of misses in a row after which the replica is unhealthy.
        idle_s: Seconds from an answer to the next check of a cluster that has had no call yet. Envoy knows that from
            its statistic ``upstream_cx_total``, which ``bootstrap.py`` keeps.
    """
    interval = Duration()
    interval.FromMilliseconds(interval_ms)
    return pb.HealthCheck(
        timeout=Duration(seconds=1),  # an Envoy that starts waits as long for a replica that hangs
        interval=interval,
        no_traffic_interval=Duration(seconds=idle_s),
        unhealthy_threshold=UInt32Value(value=misses),
        healthy_threshold=UInt32Value(value=1),
        http_health_check=pb.HealthCheck.HttpHealthCheck(host="replica", path=HEALTH_CHECK_PATH),
    )


def _circuit_breakers(retried: pb.Percent) -> pb.CircuitBreakers:
    # The replicas have their own limits (max_ongoing_requests, max_queued_requests). Envoy's defaults (1024 requests,
    # 3 retries) would reject calls long before. These limits only keep a proxy from running out of memory and files.
    # https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/circuit_breaking
    return pb.CircuitBreakers(
        thresholds=[
            pb.CircuitBreakers.Thresholds(
                max_connections=UInt32Value(value=max_connections()),  # further calls wait for one of these
                max_pending_requests=UInt32Value(value=100_000),
                max_requests=UInt32Value(value=100_000),
                retry_budget=pb.CircuitBreakers.Thresholds.RetryBudget(
                    budget_percent=retried, min_retry_concurrency=UInt32Value(value=100)
                ),
            )
        ]
    )


def _outlier_detection() -> pb.OutlierDetection:
    # Only signs that the replica is gone count (a refused or reset connection), never the status of a handler.
    # https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier
    zero = UInt32Value(value=0)
    return pb.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=UInt32Value(value=1),
        enforcing_consecutive_local_origin_failure=UInt32Value(value=100),
        enforcing_consecutive_5xx=zero,
        enforcing_consecutive_gateway_failure=zero,
        enforcing_success_rate=zero,
        base_ejection_time=Duration(seconds=5),
        interval=Duration(nanos=500_000_000),
        max_ejection_percent=UInt32Value(value=50),
    )
