"""The access log: one line of JSON for each call, written by Envoy, so calls that reached no replica are included.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators
"""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

# Names of gRPC and of Ray Serve's guide → Envoy's command operators.
_FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(request_id?x-request-id)%",
    "application": "%ROUTE_NAME%",
    # Calls that are not gRPC have their status, and the method if the path is another, from sdk/_web/web_call.py.
    "method": '%COALESCE({"operators":[{"command":"RESP","param":"call-method"},{"command":"REQ","param":":path"}]})%',
    "status": '%COALESCE({"operators":[{"command":"GRPC_STATUS","param":"SNAKE_STRING"},'
    '{"command":"RESP","param":"call-status"},{"command":"TRAILER","param":"call-status"}]})%',
    "http_status": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "replica": "%UPSTREAM_REMOTE_ADDRESS%",
    "model_id": "%REQ(multiplexed_model_id)%",
    "flags": "%RESPONSE_FLAGS%",
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
