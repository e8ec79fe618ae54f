"""The access log: one line of JSON for each call, written by Envoy, so calls that reached no replica are included.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

# Names of gRPC and of Ray Serve's guide → Envoy's command operators.
_FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(request_id?x-request-id)%",
    "application": "%ROUTE_NAME%",
    "method": "%REQ(:path)%",
    "status": "%GRPC_STATUS(SNAKE_STRING)%",
    "duration_ms": "%DURATION%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "replica": "%UPSTREAM_REMOTE_ADDRESS%",
    "model_id": "%REQ(multiplexed_model_id)%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
}


def access_log(path: str) -> pb.AccessLog:
    """Return the access log that appends to a file.

    Envoy keeps the file open and does not rotate it: truncate it in place (logrotate's ``copytruncate``).

    Args:
        path: Absolute path of the file, in a folder that exists.
    """
    fields = Struct()
    fields.update(_FIELDS)
    return pb.AccessLog(
        name="envoy.access_loggers.file",
        typed_config=pack(
            pb.FileAccessLog(path=path, log_format=pb.SubstitutionFormatString(json_format=fields)),
        ),
    )


#: Name of the cluster of the control plane, which takes the log of failures too.
CONTROL_PLANE = "ads"
# Envoy has answered itself: there is no replica, none accepted the call, the replica was lost, a limit was reached, the
# time was over, or another filter refused it.
# https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
_OWN_ANSWERS = ("UH", "UF", "UC", "UO", "URX", "UT", "RL", "UAEX")
# Milliseconds after which Envoy sends what it has logged.
_FLUSH_MS = 200


def own_answers_log(headers: Iterable[str]) -> pb.AccessLog:
    """Return the log of the calls that Envoy answers itself; it goes to the control plane (``AdsServer``).

    https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/accesslog/v3/als.proto

    Args:
        headers: Names of request headers to log.
    """
    return pb.AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=pb.AccessLogFilter(response_flag_filter=pb.ResponseFlagFilter(flags=_OWN_ANSWERS)),
        typed_config=pack(
            pb.HttpGrpcAccessLogConfig(
                common_config=pb.CommonGrpcAccessLogConfig(
                    log_name="own-answers",
                    grpc_service=pb.GrpcService(envoy_grpc=pb.GrpcService.EnvoyGrpc(cluster_name=CONTROL_PLANE)),
                    buffer_flush_interval=Duration(nanos=_FLUSH_MS * 1_000_000),
                    transport_api_version=pb.V3,
                ),
                additional_request_headers_to_log=[*headers, "request_id"],
                additional_response_headers_to_log=["grpc-status", "grpc-message", "request_id"],
            )
        ),
    )
