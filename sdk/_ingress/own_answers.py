"""Spans of the calls that Envoy has answered itself: no replica was ready, none accepted the call, or one was lost.

Envoy logs these calls alone, and to its control plane (``sdk/_xds/access_log.py``), so that others cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from sdk._otel import conventions as rpc
from sdk._otel import current
from sdk._wire.call_counts import STATUS_NAMES

if TYPE_CHECKING:
    from sdk._gen import envoy_pb2 as pb

# Of a stream that Envoy has reset after its first message, so that it has no status: clients read the reset as this.
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
_WITHOUT_STATUS = "INTERNAL"


def add_span(entry: pb.HTTPAccessLogEntry) -> None:
    """Make the span of a call that Envoy has answered itself, if this process makes spans.

    Args:
        entry: What Envoy has logged.
    """
    tracing = current.tracing
    if tracing is None:
        return
    common, request, answer = entry.common_properties, entry.request, entry.response.response_headers
    attributes: dict[str, str | int] = {
        rpc.SYSTEM: rpc.GRPC,
        rpc.METHOD: rpc.OTHER,  # Envoy routes by service; it does not know which methods there are
        rpc.METHOD_ORIGINAL: request.path[1:],
    }
    if common.route_name:
        attributes["ray.serve.application"] = common.route_name
    if request_id := answer.get("request_id") or request.request_headers.get("request_id"):
        attributes["ray.serve.request_id"] = request_id
    if request.authority:
        attributes[rpc.SERVER_ADDRESS], port = rpc.split_target(request.authority)
        if port is not None:
            attributes[rpc.SERVER_PORT] = port
    code = answer.get("grpc-status", "")
    # Of a call over Connect or JSON the name alone is known (sdk/_xds/local_replies.py).
    name = answer.get("call-status")
    if code:
        name = STATUS_NAMES.get(int(code) if code.isdigit() else -1, "UNKNOWN")
    began = common.start_time.ToNanoseconds()
    headers = {key.encode(): value.encode() for key, value in request.request_headers.items()}
    tracing.add_server(
        rpc.GRPC,
        tracing.extract(headers),
        attributes,
        name or _WITHOUT_STATUS,
        unquote(answer.get("grpc-message", "")) or entry.response.response_code_details,
        began=began,
        ended=began + common.duration.ToNanoseconds(),
    )
