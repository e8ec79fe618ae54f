"""The access log: one line for each call, written by Envoy, so calls that reached no replica are included.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

#: Namespace in the metadata of a cluster, with the keys ``application`` and ``deployment``.
NAMESPACE = "sdk"
#: Namespace and key in the metadata of an endpoint with the id of its replica, which the hash ring reads too.
REPLICA_KEY = ("envoy.lb", "hash_key")

# Names of gRPC and of Ray Serve's guide → Envoy's command operators.
_FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(request_id?x-request-id)%",
    "application": f"%METADATA(CLUSTER:{NAMESPACE}:application)%",
    "deployment": f"%METADATA(CLUSTER:{NAMESPACE}:deployment)%",
    "replica": f"%METADATA(UPSTREAM_HOST:{REPLICA_KEY[0]}:{REPLICA_KEY[1]})%",
    # Calls that are not gRPC have their status, and the method if the path is another, from sdk/_web/web_call.py.
    "method": '%COALESCE({"operators":[{"command":"RESP","param":"call-method"},{"command":"REQ","param":":path"}]})%',
    "status": '%COALESCE({"operators":[{"command":"GRPC_STATUS","param":"SNAKE_STRING"},'
    '{"command":"RESP","param":"call-status"},{"command":"TRAILER","param":"call-status"}]})%',
    "message": "%RESP(grpc-message):512%%TRAILER(grpc-message):512%",
    "http_status": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "upstream": "%UPSTREAM_REMOTE_ADDRESS%",
    "authority": "%REQ(:authority)%",
    "user_agent": "%REQ(user-agent)%",
    "timeout": "%REQ(grpc-timeout)%",
    "model_id": "%REQ(multiplexed_model_id)%",
    "traceparent": "%REQ(traceparent)%",
    "tls_subject": "%DOWNSTREAM_PEER_SUBJECT%",
}


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    """The access log of a proxy.

    Attributes:
        path: Absolute path of its file, in a folder that exists.
        format: ``"json"``: one object a line; ``"text"``: the time, then ``name="value"`` for each field.
        failed_only: Leave out calls that end OK, unless they are slow.
        slow_s: Leave out calls that last less seconds, unless they fail and ``failed_only`` is set; None for no limit.
    """

    path: str
    format: Literal["json", "text"] = "json"
    failed_only: bool = False
    slow_s: float | None = None


def access_log(config: AccessLogConfig) -> pb.AccessLog:
    """Return the access log, which appends to a file.

    Envoy keeps the file open and does not rotate it: truncate it in place (logrotate's ``copytruncate``).

    Args:
        config: Its place, format and filter.
    """
    return pb.AccessLog(
        name="envoy.access_loggers.file",
        filter=_filter(config),
        typed_config=pack(pb.FileAccessLog(path=config.path, log_format=_format(config))),
    )


def _format(config: AccessLogConfig) -> pb.SubstitutionFormatString:
    if config.format == "json":
        fields = Struct()
        fields.update(_FIELDS)
        return pb.SubstitutionFormatString(json_format=fields, omit_empty_values=True)
    named = " ".join(f'{name}="{operator}"' for name, operator in _FIELDS.items() if name != "time")
    text = pb.DataSource(inline_string=f"{_FIELDS['time']} {named}\n")
    return pb.SubstitutionFormatString(text_format_source=text, omit_empty_values=True)


_NOT_OK = " && ".join(
    f'!("call-status" in response.{part} && response.{part}["call-status"] == "OK")' for part in ("headers", "trailers")
)


def _filter(config: AccessLogConfig) -> pb.AccessLogFilter | None:
    """Return the filter of the calls that are logged; None for all."""
    filters = []
    if config.failed_only:
        failed = pb.GrpcStatusFilter(statuses=[pb.GrpcStatusFilter.OK], exclude=True)
        # Without `grpc-status`, as over gRPC-Web, Connect and JSON, a call is UNKNOWN to Envoy even if it ends OK.
        web = pb.ExtensionFilter(name="failed", typed_config=pack(pb.ExpressionFilter(expression=_NOT_OK)))
        both = [pb.AccessLogFilter(grpc_status_filter=failed), pb.AccessLogFilter(extension_filter=web)]
        filters.append(pb.AccessLogFilter(and_filter=pb.AndFilter(filters=both)))
    if config.slow_s is not None:
        least = pb.RuntimeUInt32(default_value=round(config.slow_s * 1000), runtime_key="sdk.access_log.slow_ms")
        slow = pb.DurationFilter(comparison=pb.ComparisonFilter(op=pb.ComparisonFilter.GE, value=least))
        filters.append(pb.AccessLogFilter(duration_filter=slow))
    if len(filters) > 1:
        return pb.AccessLogFilter(or_filter=pb.OrFilter(filters=filters))
    return filters[0] if filters else None


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
                additional_response_headers_to_log=["grpc-status", "grpc-message", "call-status", "request_id"],
            )
        ),
    )
