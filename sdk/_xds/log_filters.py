"""Filters of Envoy's access logs, which its local replies have too.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/accesslog/v3/accesslog.proto
"""

from __future__ import annotations

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

# Names by which Envoy's runtime, which nothing here uses, could change the values.
_STATUS_KEY, _DURATION_KEY = "sdk.unused", "sdk.access_log.slow_ms"


def both(*filters: pb.AccessLogFilter) -> pb.AccessLogFilter:
    """Return the filter of the calls that match each of these filters."""
    return pb.AccessLogFilter(and_filter=pb.AndFilter(filters=filters))


def either(*filters: pb.AccessLogFilter) -> pb.AccessLogFilter:
    """Return the filter of the calls that match one of these filters."""
    return pb.AccessLogFilter(or_filter=pb.OrFilter(filters=filters))


def flagged(*flags: str) -> pb.AccessLogFilter:
    """Return the filter of the calls with one of these response flags.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
    """
    return pb.AccessLogFilter(response_flag_filter=pb.ResponseFlagFilter(flags=flags))


def ends(*statuses: str, otherwise: bool = False) -> pb.AccessLogFilter:
    """Return the filter of the calls that end with one of these gRPC statuses.

    Envoy derives the status of a call without ``grpc-status`` from its HTTP status.

    Args:
        statuses: Names of statuses.
        otherwise: Return the filter of all other calls.
    """
    numbers = [pb.GrpcStatusFilter.Status.Value(status) for status in statuses]
    return pb.AccessLogFilter(grpc_status_filter=pb.GrpcStatusFilter(statuses=numbers, exclude=otherwise))


def matches(expression: str) -> pb.AccessLogFilter:
    """Return the filter of the calls for which an expression is true.

    https://www.envoyproxy.io/docs/envoy/latest/xds/type/v3/cel.proto

    Args:
        expression: In CEL, with Envoy's attributes.
    """
    config = pb.ExpressionFilter(expression=expression)
    return pb.AccessLogFilter(extension_filter=pb.ExtensionFilter(name="expression", typed_config=pack(config)))


def has_status(status: int) -> pb.AccessLogFilter:
    """Return the filter of the calls with an HTTP status."""
    value = pb.RuntimeUInt32(default_value=status, runtime_key=_STATUS_KEY)
    comparison = pb.ComparisonFilter(op=pb.ComparisonFilter.EQ, value=value)
    return pb.AccessLogFilter(status_code_filter=pb.StatusCodeFilter(comparison=comparison))


def lasts(seconds: float) -> pb.AccessLogFilter:
    """Return the filter of the calls that last at least so long."""
    least = pb.RuntimeUInt32(default_value=round(seconds * 1000), runtime_key=_DURATION_KEY)
    comparison = pb.ComparisonFilter(op=pb.ComparisonFilter.GE, value=least)
    return pb.AccessLogFilter(duration_filter=pb.DurationFilter(comparison=comparison))


def has_header(matcher: pb.HeaderMatcher) -> pb.AccessLogFilter:
    """Return the filter of the calls with a request header."""
    return pb.AccessLogFilter(header_filter=pb.HeaderFilter(header=matcher))


def absent(header: str) -> pb.AccessLogFilter:
    """Return the filter of the calls without a request header."""
    return has_header(pb.HeaderMatcher(name=header, present_match=True, invert_match=True))


def has_content_type(prefix: str, *, invert: bool = False) -> pb.AccessLogFilter:
    """Return the filter of the calls whose content-type begins so, or of all others."""
    return has_header(
        pb.HeaderMatcher(
            name="content-type",
            string_match=pb.StringMatcher(prefix=prefix),
            treat_missing_header_as_empty=True,
            invert_match=invert,
        )
    )
