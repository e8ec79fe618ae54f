"""Clusters and their endpoints: where Envoy sends a call once it is routed, and how it picks a replica."""

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
from sdk._xds.ext_authz import GATE_CLUSTER
from sdk._xds.listener import MAX_HEADERS, ads_source, socket_address
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdk._xds.listener import ListenerConfig
    from sdk._xds.snapshot import Deployment, Endpoint

FALLBACK_CLUSTER = "fallback"
_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# A replica may hold this share (in percent) of the average load before a model's calls spill to the next replica.
_HASH_BALANCE_FACTOR = 125
# The most that a replica adds to the client's request id, which may fill a request: metadata of 64 KiB in base64 and a
# status message. Above that Envoy would take the answer for a broken replica's, and keep calls from it for a while.
_RESPONSE_EXTRA_KIB = 104


def cluster_name(application: str, deployment: str) -> str:
    """Returns the name of a deployment's cluster and of its endpoints; distinct for distinct pairs."""
    return f"{quote(application, safe='')}#{quote(deployment, safe='')}"


def affinity_cluster_name(application: str, deployment: str) -> str:
    """Returns the name of the cluster that keeps a model's calls together, over the same endpoints."""
    return cluster_name(application, deployment) + "#model"


def deployment_clusters(application: str, deployment: str, config: ListenerConfig) -> Iterator[pb.Cluster]:
    """Yields a deployment's two clusters: one by load, one by model."""
    name = cluster_name(application, deployment)
    by_load, by_model = pb.Cluster(), pb.Cluster()
    for cluster in by_load, by_model:
        cluster.CopyFrom(_replica_cluster(config))
        cluster.eds_cluster_config.service_name = name
    by_load.name = name
    by_load.lb_policy = pb.Cluster.LEAST_REQUEST
    by_load.health_checks.append(_health_check(misses=1, idle_s=3))
    yield by_load
    by_model.name = affinity_cluster_name(application, deployment)
    by_model.lb_policy = pb.Cluster.RING_HASH
    # Loading a model may well block a replica's loop. Were its calls sent elsewhere meanwhile, the next replica would
    # load the model too, and then the next.
    by_model.health_checks.append(_health_check(misses=6, idle_s=10))
    by_model.common_lb_config.consistent_hashing_lb_config.hash_balance_factor.value = _HASH_BALANCE_FACTOR
    yield by_model


def fallback_cluster(config: ListenerConfig) -> pb.Cluster:
    """Returns the cluster of the proxy's own gRPC server."""
    cluster = unix_cluster(FALLBACK_CLUSTER, config.fallback_socket)
    cluster.circuit_breakers.CopyFrom(_circuit_breakers())
    return cluster


def gate_cluster(config: ListenerConfig) -> pb.Cluster:
    """Returns the cluster of the proxy's server that lets calls wait."""
    cluster = unix_cluster(GATE_CLUSTER, config.gate_socket)
    cluster.circuit_breakers.CopyFrom(_circuit_breakers())
    return cluster


def unix_cluster(name: str, path: str) -> pb.Cluster:
    """Returns the cluster of a gRPC server that listens on a unix socket."""
    host = pb.LbEndpoint(endpoint=pb.Endpoint(address=pb.Address(pipe=pb.Pipe(path=path))))
    http2 = pb.HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=pb.Http2ProtocolOptions())
    return pb.Cluster(
        name=name,
        type=pb.Cluster.STATIC,
        connect_timeout=Duration(seconds=1),
        typed_extension_protocol_options={_PROTOCOL_OPTIONS: pack(pb.HttpProtocolOptions(explicit_http_config=http2))},
        load_assignment=_assignment(name, [host]),
    )


def deployment_endpoints(application: str, deployment: Deployment) -> pb.ClusterLoadAssignment:
    """Returns the endpoints of a deployment, sorted: order must not look like a change."""
    # Two replicas can't share an address: when one took over another's port, the table may hold both for a moment.
    by_address = {
        endpoint.socket or (endpoint.host, endpoint.port): endpoint for endpoint in sorted(deployment.endpoints)
    }
    hosts = []
    for endpoint in by_address.values():
        hosts.append(pb.LbEndpoint(endpoint=pb.Endpoint(address=_address(endpoint))))
        # A model's home is a hash of this. By default it is of the address, which differs from proxy to proxy: each
        # reaches the replicas of its own node by loopback.
        hosts[-1].metadata.filter_metadata["envoy.lb"].fields["hash_key"].string_value = endpoint.replica_id
    return _assignment(cluster_name(application, deployment.name), hosts)


def _address(endpoint: Endpoint) -> pb.Address:
    # A unix socket costs a tenth less of Envoy's time a call than loopback TCP, and a fifth less of the replica's.
    if endpoint.socket:
        return pb.Address(pipe=pb.Pipe(path=f"@{endpoint.socket}"))
    return socket_address(endpoint.host, endpoint.port)


def _assignment(name: str, hosts: list[pb.LbEndpoint]) -> pb.ClusterLoadAssignment:
    return pb.ClusterLoadAssignment(
        cluster_name=name, endpoints=[pb.LocalityLbEndpoints(lb_endpoints=hosts)] if hosts else []
    )


@lru_cache(maxsize=1)
def _replica_cluster(config: ListenerConfig) -> pb.Cluster:
    # What all deployments share. Copying it is ten times as fast as building it, and there may be thousands.
    http1 = pb.HttpProtocolOptions(
        common_http_protocol_options=pb.CoreHttpProtocolOptions(
            max_headers_count=UInt32Value(value=MAX_HEADERS),
            max_response_headers_kb=UInt32Value(value=config.max_headers_kib.value + _RESPONSE_EXTRA_KIB),
        ),
        explicit_http_config=pb.HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=pb.Http1ProtocolOptions(enable_trailers=True)
        ),
    )
    return pb.Cluster(
        type=pb.Cluster.EDS,
        eds_cluster_config=pb.Cluster.EdsClusterConfig(eds_config=ads_source()),
        connect_timeout=Duration(seconds=1),
        circuit_breakers=_circuit_breakers(),
        outlier_detection=_outlier_detection(),
        # A replica that leaves is healthy, and Envoy would keep it until it no longer is.
        ignore_health_on_host_removal=True,
        # As long as one replica in a hundred answers, those that don't get no calls. When none does, all get them as
        # if all did: a replica that is busy and not lost answers later, and the client's deadline is its own.
        common_lb_config=pb.Cluster.CommonLbConfig(healthy_panic_threshold=pb.Percent(value=1)),
        typed_extension_protocol_options={_PROTOCOL_OPTIONS: pack(http1)},
        upstream_bind_config=pb.BindConfig(socket_options=[_reset_on_close()]),
        # A node that loses power sends no reset: without this its calls would hang to their deadline, or for ever.
        upstream_connection_options=pb.UpstreamConnectionOptions(
            tcp_keepalive=pb.TcpKeepalive(
                keepalive_time=UInt32Value(value=10),
                keepalive_interval=UInt32Value(value=5),
                keepalive_probes=UInt32Value(value=3),
            )
        ),
    )


def _reset_on_close() -> pb.SocketOption:
    """Lets Envoy close a connection by a reset (TCP only; SO_LINGER of no time).

    It closes when a client cancels. The end that TCP knows otherwise stands behind all that was sent, and a handler
    that reads nothing would learn of it when the kernel gives up, after some minutes; a reset overtakes it.
    """
    return pb.SocketOption(
        description="close by a reset",
        level=socket.SOL_SOCKET,
        name=socket.SO_LINGER,
        buf_value=struct.pack("ii", 1, 0),  # struct linger: on, 0 seconds
    )


@lru_cache
def _health_check(*, misses: int, idle_s: int) -> pb.HealthCheck:
    """Finds replicas that hold their connections and serve nothing: stopped, or with a loop that hangs.

    A stopped replica gets no new calls after at most 1.75 s for each miss that it may have. Calls that it has are left
    to it: it may only be busy, in a handler that blocks the loop, and will answer them. Where no call has gone yet, it
    is asked every ``idle_s`` seconds. A question costs Envoy 20 µs and the replica 10 µs.
    """
    return pb.HealthCheck(
        timeout=Duration(seconds=1),
        interval=Duration(nanos=750_000_000),
        no_traffic_interval=Duration(seconds=idle_s),
        unhealthy_threshold=UInt32Value(value=misses),
        healthy_threshold=UInt32Value(value=1),
        http_health_check=pb.HealthCheck.HttpHealthCheck(host="replica", path=HEALTH_CHECK_PATH),
    )


def _circuit_breakers() -> pb.CircuitBreakers:
    # The replicas limit themselves (max_ongoing_requests, max_queued_requests). Envoy's defaults (1024 requests,
    # 3 retries) would refuse calls long before; these only keep a proxy from running out of memory and ports.
    return pb.CircuitBreakers(
        thresholds=[
            pb.CircuitBreakers.Thresholds(
                max_connections=UInt32Value(value=100_000),
                max_pending_requests=UInt32Value(value=100_000),
                max_requests=UInt32Value(value=100_000),
                max_retries=UInt32Value(value=1_000),
            )
        ]
    )


def _outlier_detection() -> pb.OutlierDetection:
    # Only what says that the replica is gone counts (a refused or cut connection), never what a handler answers.
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
