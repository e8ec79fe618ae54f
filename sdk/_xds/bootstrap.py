"""Envoy's bootstrap: its node id, and the socket of its control plane. Everything else comes over ADS.

https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/bootstrap
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._guard.private_socket import PRIVATE
from sdk._xds.access_log import CONTROL_PLANE
from sdk._xds.clusters import unix_cluster
from sdk._xds.listener import ads_source
from sdk._xds.overload import overload_manager

# Envoy ends a connection, with all its calls, when half of its calls were cancelled within a second of their start:
# by default at the 250th. Clients of gRPC cancel honestly (deadlines, hedging, users who leave), and a count over the
# life of a connection can't distinguish them from an attack (CVE-2023-44487). So the count is out of reach, and instead
# a connection starts at most so many calls in one turn of Envoy's event loop. Those that were cancelled before their
# turn reach no replica: 100,000 in one go cost Envoy 11 µs and 1 KiB each, a third of an ordinary call
# (tests/benchmarks/cancelled_calls.py).
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/runtime
_RUNTIME: dict[str, float] = {
    "overload.premature_reset_total_stream_count": 1 << 31,
    "http.max_requests_per_io_cycle": 32,
    # The other codec, nghttp2, ends a connection on which more than 33 streams a second are cancelled, after a burst of
    # 1,000, and Envoy has no option for that.
    # https://nghttp2.org/documentation/nghttp2_option_set_stream_reset_rate_limit.html
    "envoy.reloadable_features.http2_use_oghttp2": True,
    # The default of 100 is about as many characters of a path: Envoy would reject the routes of google.api.http that
    # are longer, and all others with them.
    "re2.max_program_size.error_level": 1 << 20,
    "re2.max_program_size.warn_level": 1 << 20,
}

# Of the hundred statistics of a cluster, the proxy exports some of these (sdk/_ingress/envoy/stats.py). Each deployment
# has two clusters: with 1,000 deployments, all statistics took 66 MB, and 0.15 s of CPU time at each export in place of
# 0.02.
_OF_CLUSTERS = (
    "upstream_cx_active",
    "upstream_cx_connect_fail",
    "upstream_cx_none_healthy",
    "upstream_cx_total",  # not exported: without it, Envoy checks the health of replicas as if no call had come yet
    "upstream_rq_active",
    "upstream_rq_pending_overflow",
    "upstream_rq_pending_total",
    "upstream_rq_retry",
    "upstream_rq_total",
)


def build_bootstrap(
    *, node_id: str, ads_socket: str, admin_socket: str, max_memory_bytes: int | None = None
) -> pb.Bootstrap:
    """Return Envoy's bootstrap. Write ``build_bootstrap(...).SerializeToString()`` to a file that ends in ``.pb``.

    Args:
        node_id: Name of this Envoy in its logs and requests.
        ads_socket: Path of the unix socket on which ``AdsServer`` listens.
        admin_socket: Path of the unix socket for Envoy's admin interface. A process that can open it can stop Envoy:
            Envoy gives it to this user only, and it belongs in a folder that nobody else can enter.
        max_memory_bytes: Limit of the memory that Envoy allocates; None for no limit.
    """
    ads = pb.GrpcService(
        envoy_grpc=pb.GrpcService.EnvoyGrpc(
            cluster_name=CONTROL_PLANE,
            # By default Envoy backs off up to 30 s, and a restarted proxy would wait that long for it to reconnect.
            retry_policy=pb.CoreRetryPolicy(
                retry_back_off=pb.BackoffStrategy(
                    base_interval=Duration(nanos=100_000_000), max_interval=Duration(seconds=1)
                )
            ),
        )
    )
    runtime = pb.RuntimeLayer(name="static")
    runtime.static_layer.update(_RUNTIME)
    return pb.Bootstrap(
        node=pb.Node(id=node_id, cluster="ray-grpc-sdk"),
        admin=pb.Admin(address=pb.Address(pipe=pb.Pipe(path=admin_socket, mode=PRIVATE))),
        dynamic_resources=pb.Bootstrap.DynamicResources(
            ads_config=pb.ApiConfigSource(
                api_type=pb.ApiConfigSource.DELTA_GRPC, transport_api_version=pb.V3, grpc_services=[ads]
            ),
            cds_config=ads_source(),
            lds_config=ads_source(),
        ),
        static_resources=pb.Bootstrap.StaticResources(clusters=[unix_cluster(CONTROL_PLANE, ads_socket)]),
        stats_config=pb.StatsConfig(stats_matcher=_statistics()),
        layered_runtime=pb.LayeredRuntime(layers=[runtime]),
        overload_manager=overload_manager(max_memory_bytes),
    )


def _statistics() -> pb.StatsMatcher:
    """Return the matcher of the statistics that Envoy keeps.

    https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/metrics/v3/stats.proto
    """
    prefixes = ("http.grpc.", "grpc.", "listener.", "server.", "overload.", "control_plane.")
    patterns = [pb.StringMatcher(prefix=prefix) for prefix in prefixes]
    patterns += [pb.StringMatcher(suffix=f".{name}") for name in _OF_CLUSTERS]
    return pb.StatsMatcher(inclusion_list=pb.ListStringMatcher(patterns=patterns))
