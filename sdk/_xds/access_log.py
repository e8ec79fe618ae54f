"""The access log: one line for each call, written by Envoy, so calls that reached no replica are included.

It goes to a file, or by OTLP to a collector of logs.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from sdk._gen import envoy_pb2 as pb
from sdk._otel.otlp import Collector
from sdk._xds.api_key_script import DETAILS_KEY
from sdk._xds.headers import first_of, set_header
from sdk._xds.log_filters import both, either, ends, flagged, lasts, matches
from sdk._xds.packing import pack

#: Namespace in the metadata of a cluster, with the keys ``application`` and ``deployment``.
NAMESPACE = "sdk"
#: Name of the cluster of the collector.
COLLECTOR = "otlp"
#: Seconds that a collector has to take records: the default of OTLP's exporters.
# https://opentelemetry.io/docs/specs/otel/protocol/exporter/#configuration-options
COLLECTOR_TIMEOUT = Duration(seconds=10)
#: The replica of a call that the proxy has answered, as Envoy writes a field without a value.
NO_REPLICA = "-"


# Names of gRPC and of Ray Serve's guide → Envoy's command operators.
_FIELDS = {
    "time": "%START_TIME%",
    "request_id": first_of("REQ request_id?x-request-id", "RESP request_id"),
    "application": f"%METADATA(CLUSTER:{NAMESPACE}:application)%",
    "deployment": f"%METADATA(CLUSTER:{NAMESPACE}:deployment)%",
    "replica": "%UPSTREAM_HOST_NAME%",
    # Calls that are not gRPC have their status, and the method if the path is another, from sdk/_web/web_call.py.
    "method": first_of("RESP call-method", "REQ :path"),
    "status": first_of("GRPC_STATUS SNAKE_STRING", "RESP call-status", "TRAILER call-status"),
    "message": first_of("RESP grpc-message", "TRAILER grpc-message", max_length=512),
    "http_status": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "flags": "%RESPONSE_FLAGS%",
    "details": first_of(f"DYNAMIC_METADATA {':'.join(DETAILS_KEY)}", "RESPONSE_CODE_DETAILS"),
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "upstream": "%UPSTREAM_REMOTE_ADDRESS%",
    "authority": "%REQ(:authority)%",
    "user_agent": "%REQ(user-agent)%",
    "timeout": "%REQ(grpc-timeout)%",
    "model_id": "%REQ(multiplexed_model_id)%",
    # That of the replica's span, if the trace begins there (sdk/_wire/traced_call.py).
    "traceparent": first_of("REQ traceparent", "RESP traceresponse"),
    "tls_subject": "%DOWNSTREAM_PEER_SUBJECT%",
}


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    """The access log of a proxy.

    Attributes:
        target: Absolute path of its file, in a folder that exists; or the collector.
        format: Of a file; ``"json"``: one object a line; ``"text"``: the time, then ``name="value"`` for each field.
        service: Name of the service in what the collector gets.
        failed_only: Leave out calls that end OK, unless they are slow.
        slow_s: Leave out calls that last less seconds, unless they fail and ``failed_only`` is set; None for no limit.
    """

    target: str | Collector
    format: Literal["json", "text"] = "json"
    service: str = ""
    failed_only: bool = False
    slow_s: float | None = None


def access_log(config: AccessLogConfig) -> pb.AccessLog:
    """Return the access log.

    Envoy keeps a file open and does not rotate it: truncate it in place (logrotate's ``copytruncate``).

    Args:
        config: Its target, format and filter.
    """
    if isinstance(config.target, Collector):
        return pb.AccessLog(
            name="envoy.access_loggers.open_telemetry",
            filter=_filter(config),
            typed_config=pack(_otlp_log(config.target, config.service)),
        )
    return pb.AccessLog(
        name="envoy.access_loggers.file",
        filter=_filter(config),
        typed_config=pack(pb.FileAccessLog(path=config.target, log_format=_format(config))),
    )


def _otlp_log(collector: Collector, service: str) -> pb.OpenTelemetryAccessLogConfig:
    """Return the configuration of records for a collector, with the same fields as attributes.

    https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/access_loggers/open_telemetry/v3/logs_service.proto
    """
    log = pb.OpenTelemetryAccessLogConfig(
        log_name="access_log",
        disable_builtin_labels=True,  # they name Envoy's own node and cluster
        resource_attributes=_attributes({"service.name": service}),
        body=pb.AnyValue(string_value=f"CALL {_FIELDS['method']} {_FIELDS['status']} {_FIELDS['duration_ms']}ms"),
        # A record has its own time.
        attributes=_attributes({name: operator for name, operator in _FIELDS.items() if name != "time"}),
    )
    if collector.path:
        host = f"[{collector.host}]" if ":" in collector.host else collector.host
        uri = f"{'https' if collector.ca else 'http'}://{host}:{collector.port}{collector.path}"
        log.http_service.http_uri.CopyFrom(pb.HttpUri(uri=uri, cluster=COLLECTOR, timeout=COLLECTOR_TIMEOUT))
        log.http_service.request_headers_to_add.extend(
            set_header(key, value.replace("%", "%%"))  # where an operator might be
            for key, value in collector.headers
        )
    else:
        log.grpc_service.envoy_grpc.cluster_name = COLLECTOR
        log.grpc_service.initial_metadata.extend(
            pb.HeaderValue(key=key, value=value) for key, value in collector.headers
        )
    return log


def _attributes(values: Mapping[str, str]) -> pb.KeyValueList:
    pairs = [pb.KeyValue(key=key, value=pb.AnyValue(string_value=value)) for key, value in values.items()]
    return pb.KeyValueList(values=pairs)


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
        # Without `grpc-status`, as over gRPC-Web, Connect and JSON, a call is UNKNOWN to Envoy even if it ends OK.
        filters.append(both(ends("OK", otherwise=True), matches(_NOT_OK)))
    if config.slow_s is not None:
        filters.append(lasts(config.slow_s))
    if len(filters) > 1:
        return either(*filters)
    return filters[0] if filters else None


#: Name of the cluster of the control plane, which takes the log of failures too.
CONTROL_PLANE = "ads"
# Envoy has answered itself: there is no replica, none accepted the call, the replica was lost, a limit was reached, the
# time was over, or the gate refused it.
# https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
_OWN_ANSWERS = ("UH", "UF", "UC", "UO", "URX", "UT", "RL", "UAEX")
# The filters of the option `access` set no flag when they refuse a call.
_REFUSED = " || ".join(
    f'response.code_details.startsWith("{details}")'
    for details in ("jwt_authn_access_denied", "rbac_access_denied", "lua_response")
)
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
        # The expression is evaluated only for calls with one of the statuses of refusals.
        filter=either(flagged(*_OWN_ANSWERS), both(ends("UNAUTHENTICATED", "PERMISSION_DENIED"), matches(_REFUSED))),
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
