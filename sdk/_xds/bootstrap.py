"""Envoy's bootstrap: its node id, and the socket of its control plane. Everything else comes over ADS.

https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/bootstrap
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._xds.clusters import unix_cluster
from sdk._xds.listener import ads_source
from sdk._xds.packing import pack

_ADS_CLUSTER = "ads"


def build_bootstrap(
    *, node_id: str, ads_socket: str, admin_socket: str, max_client_connections: int = 100_000
) -> pb.Bootstrap:
    """Return Envoy's bootstrap. Write ``build_bootstrap(...).SerializeToString()`` to a file that ends in ``.pb``.

    Args:
        node_id: Name of this Envoy in its logs and requests.
        ads_socket: Path of the unix socket on which ``AdsServer`` listens.
        admin_socket: Path of the unix socket for Envoy's admin interface. A process that can open it can stop Envoy,
            so it belongs in a folder that only this user can enter.
        max_client_connections: Maximum number of client connections; Envoy refuses more. Without a limit it warns that
            it may run out of file descriptors.
    """
    ads = pb.GrpcService(
        envoy_grpc=pb.GrpcService.EnvoyGrpc(
            cluster_name=_ADS_CLUSTER,
            # By default Envoy backs off up to 30 s, and a restarted proxy would wait that long for it to reconnect.
            retry_policy=pb.CoreRetryPolicy(
                retry_back_off=pb.BackoffStrategy(
                    base_interval=Duration(nanos=100_000_000), max_interval=Duration(seconds=1)
                )
            ),
        )
    )
    connection_limit = pb.DownstreamConnectionsConfig(max_active_downstream_connections=max_client_connections)
    return pb.Bootstrap(
        node=pb.Node(id=node_id, cluster="ray-grpc-sdk"),
        admin=pb.Admin(address=pb.Address(pipe=pb.Pipe(path=admin_socket))),
        dynamic_resources=pb.Bootstrap.DynamicResources(
            ads_config=pb.ApiConfigSource(
                api_type=pb.ApiConfigSource.GRPC, transport_api_version=pb.V3, grpc_services=[ads]
            ),
            cds_config=ads_source(),
            lds_config=ads_source(),
        ),
        static_resources=pb.Bootstrap.StaticResources(clusters=[unix_cluster(_ADS_CLUSTER, ads_socket)]),
        overload_manager=pb.OverloadManager(
            resource_monitors=[
                pb.ResourceMonitor(
                    name="envoy.resource_monitors.global_downstream_max_connections",
                    typed_config=pack(connection_limit),
                )
            ]
        ),
    )
