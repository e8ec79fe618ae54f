"""Envoy's local replies: its own answers to calls that reach no replica, or lose theirs.

Each cause has a reply in the form of the call's protocol: gRPC, gRPC-Web, or JSON for all others.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/local_reply
https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import IDENTITY_HEADERS
from sdk._status import STATUS_DETAILS, retry_later
from sdk._xds.headers import first_of, set_header
from sdk._xds.log_filters import absent, both, either, flagged, has_content_type, has_header, has_status
from sdk._xds.retries import NO_MORE_RETRIES, PREVIOUS_ATTEMPTS_KEY

_LOST = "The replica with the call was lost before it answered (%RESPONSE_CODE_DETAILS%)"
_REFUSED = "No replica accepted a connection for the call (%RESPONSE_CODE_DETAILS%)"
_OVER_LIMIT = "The call exceeds a limit of the ingress. Try again later."
_NO_MEMORY = "The proxy has reached its limit of memory (max_envoy_memory_bytes). Try again later."
_TOO_MANY_RETRIES = "; too many other calls are being retried."
_BODY = "%LOCAL_REPLY_BODY%"
_CAUSE = "%RESPONSE_CODE_DETAILS%"
# A call that is refused for want of memory has no `x-request-id` yet.
_REQUEST_ID = first_of("REQ request_id?x-request-id", "UNIQUE_ID")


@dataclass(frozen=True, slots=True)
class _Status:
    """A status as each protocol has it: the gRPC code, its name, Connect's name, and the HTTP status."""

    number: int
    name: str
    web_name: str
    http: int


_UNAVAILABLE = _Status(14, "UNAVAILABLE", "unavailable", 503)
_RESOURCE_EXHAUSTED = _Status(8, "RESOURCE_EXHAUSTED", "resource_exhausted", 429)
_NOT_FOUND = _Status(5, "NOT_FOUND", "not_found", 404)
_DEADLINE_EXCEEDED = _Status(4, "DEADLINE_EXCEEDED", "deadline_exceeded", 504)
_UNAUTHENTICATED = _Status(16, "UNAUTHENTICATED", "unauthenticated", 401)
_PERMISSION_DENIED = _Status(7, "PERMISSION_DENIED", "permission_denied", 403)
_UNIMPLEMENTED = _Status(12, "UNIMPLEMENTED", "unimplemented", 501)
# The statuses with which Envoy's filters refuse calls.
_BY_HTTP_STATUS = (
    _UNAUTHENTICATED,
    _PERMISSION_DENIED,
    _RESOURCE_EXHAUSTED,
    _DEADLINE_EXCEEDED,
)
# Requests that are not calls in any protocol, by the HTTP status with which Envoy refuses them.
_NO_CALLS = (
    (_Status(3, "INVALID_ARGUMENT", "invalid_argument", 400), f"The request is not valid HTTP ({_CAUSE})."),
    (_NOT_FOUND, f"The ingress has nothing at this path ({_CAUSE})."),
    (_Status(8, "RESOURCE_EXHAUSTED", "resource_exhausted", 413), f"The request is too large ({_CAUSE})."),
    # https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_http_version
    (
        _Status(12, "UNIMPLEMENTED", "unimplemented", 426),
        "The ingress speaks HTTP/1.1 and HTTP/2, not HTTP/1.0. Behind nginx, set proxy_http_version 1.1.",
    ),
    (
        _Status(8, "RESOURCE_EXHAUSTED", "resource_exhausted", 431),
        f"The headers of the request are too many or too long ({_CAUSE}).",
    ),
    (_Status(13, "INTERNAL", "internal", 500), f"The ingress failed ({_CAUSE})."),
    (_UNIMPLEMENTED, f"The ingress does not support this kind of request ({_CAUSE})."),
    (_Status(14, "UNAVAILABLE", "unavailable", 502), f"The replica gave no valid answer ({_CAUSE})."),
)


@functools.cache  # every listener has the same, and most of what it takes to build one is this
def local_replies() -> pb.LocalReplyConfig:
    """Return the local replies: add `request_id` to each, and set status and message by the cause.

    Envoy uses only the first mapper that matches, so each one adds `request_id`. Local replies to gRPC calls are
    Trailers-Only: a client reads their headers as trailing metadata. The name of a route is its application's name.
    """
    overflow, retries_spent, no_host = flagged("UO"), flagged("URX"), flagged("UH")
    lost, refused = flagged("UC"), flagged("UF")
    # Envoy refuses these before it has done anything with the request, and sets no flag.
    overloaded = both(has_status(503), absent("x-request-id"))
    repeated = has_header(pb.HeaderMatcher(name=PREVIOUS_ATTEMPTS_KEY, present_match=True))
    always = pb.AccessLogFilter(not_health_check_filter=pb.NotHealthCheckFilter())
    return pb.LocalReplyConfig(
        mappers=[
            *_replies(
                # With this status Envoy refuses it, as it refuses clients without credentials.
                both(has_status(403), has_header(pb.HeaderMatcher(name="upgrade", present_match=True))),
                "The ingress upgrades no connection to another protocol, such as WebSocket.",
                _UNIMPLEMENTED,
            ),
            *_refused(),
            *_replies(
                overloaded,
                _NO_MEMORY,
                _RESOURCE_EXHAUSTED,
                details=retry_later(_RESOURCE_EXHAUSTED.number, _NO_MEMORY),
            ),
            *_replies(both(overflow, lost), _LOST + _TOO_MANY_RETRIES),
            *_replies(both(overflow, refused), _REFUSED + _TOO_MANY_RETRIES),
            *_replies(
                overflow,
                "Request dropped due to backpressure: the proxy has reached its limit of requests for application "
                "'%ROUTE_NAME%'.",
                _RESOURCE_EXHAUSTED,
            ),
            *_replies(no_host, "No replica of application '%ROUTE_NAME%' is ready."),
            *_replies(
                both(lost, either(retries_spent, repeated)),
                f"{_LOST}, as one before it. It is not sent again: it may be what ends them.",
                headers=(set_header(*NO_MORE_RETRIES),),
            ),
            *_replies(lost, f"{_LOST}."),
            *_replies(refused, f"{_REFUSED}."),
            *(reply for status in _BY_HTTP_STATUS for reply in _web_replies(has_status(status.http), _BODY, status)),
            *_web_replies(has_status(503), _BODY, _UNAVAILABLE),
            *(reply for status, text in _NO_CALLS for reply in _web_replies(has_status(status.http), text, status)),
            pb.ResponseMapper(filter=always, headers_to_add=[_request_id()]),
        ]
    )


def _refused() -> Iterator[pb.ResponseMapper]:
    """Yield the replies to calls that the filters of the option ``access`` refuse.

    To Envoy, calls without credentials are as forbidden as those of somebody who is known, and so are tokens for
    another audience. gRPC distinguishes the two: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    """
    # The gate, which writes its own message. Its HTTP status says which gRPC status it is.
    waited = flagged("UAEX")
    for status in (_NOT_FOUND, _RESOURCE_EXHAUSTED, _UNAVAILABLE, _DEADLINE_EXCEEDED):
        yield from _web_replies(both(waited, has_status(status.http)), _BODY, status, has_message=True)
    yield pb.ResponseMapper(filter=waited, headers_to_add=[_request_id()])
    details = retry_later(_RESOURCE_EXHAUSTED.number, _OVER_LIMIT)
    yield from _replies(has_status(429), _OVER_LIMIT, _RESOURCE_EXHAUSTED, details=details)
    forbidden = has_status(403)
    unknown = both(forbidden, *map(absent, (*IDENTITY_HEADERS, "x-forwarded-client-cert")))
    challenge = set_header("www-authenticate", "Bearer")
    for matches, text, headers in (
        (
            both(unknown, absent("authorization")),
            "The call needs credentials: the ingress knows no client without them.",
            (challenge,),
        ),
        (unknown, _BODY, ()),
    ):
        yield from _web_replies(matches, text, _UNAUTHENTICATED, headers)
        yield pb.ResponseMapper(
            filter=matches,
            status_code=UInt32Value(value=401),
            headers_to_add=[_request_id(), set_header("grpc-status", str(_UNAUTHENTICATED.number)), *headers],
            body_format_override=_text(text) if text != _BODY else None,
        )
    yield from _replies(forbidden, "No rule of the ingress allows this call for this client.", _PERMISSION_DENIED)


def _replies(
    matches: pb.AccessLogFilter,
    text: str,
    status: _Status = _UNAVAILABLE,
    headers: tuple[pb.HeaderValueOption, ...] = (),
    details: bytes = b"",
) -> Iterator[pb.ResponseMapper]:
    """Yield the replies of one cause, for each protocol."""
    yield from _web_replies(matches, text, status, details=details)
    headers = (*headers, *_details_header(details))
    if status is not _UNAVAILABLE:
        headers = (*headers, set_header("grpc-status", str(status.number)))
    yield pb.ResponseMapper(filter=matches, headers_to_add=[_request_id(), *headers], body_format_override=_text(text))


def _web_replies(
    matches: pb.AccessLogFilter,
    text: str,
    status: _Status,
    headers: tuple[pb.HeaderValueOption, ...] = (),
    *,
    has_message: bool = False,
    details: bytes = b"",
) -> Iterator[pb.ResponseMapper]:
    """Yield the replies to calls over gRPC-Web, and to those that are not gRPC.

    Args:
        matches: The cause.
        text: The message.
        status: The status.
        headers: Headers to add.
        has_message: Whether the reply has `grpc-message` already.
        details: A serialized ``google.rpc.Status`` with error details; empty for none.
    """
    name = set_header("call-status", status.name)
    message = set_header("grpc-message", text.replace(_BODY, _CAUSE))
    yield pb.ResponseMapper(
        filter=both(has_content_type("application/grpc-web"), matches),
        status_code=UInt32Value(value=200),
        headers_to_add=[
            _request_id(),
            name,
            set_header("grpc-status", str(status.number)),
            *(() if has_message else (message,)),
            *_details_header(details),
            *headers,
        ],
        body_format_override=pb.SubstitutionFormatString(
            text_format_source=pb.DataSource(inline_string=""), content_type="application/grpc-web+proto"
        ),
    )
    error = Struct()
    error.update({"code": status.web_name, "message": text})
    if details:
        packed = pb.Status.FromString(details).details
        # https://connectrpc.com/docs/protocol#error-end-stream
        error.update({"details": [{"type": each.TypeName(), "value": _base64(each.value)} for each in packed]})
    yield pb.ResponseMapper(
        filter=both(has_content_type("application/grpc", invert=True), matches),
        status_code=UInt32Value(value=status.http),
        headers_to_add=[_request_id(), name, *headers],
        body_format_override=pb.SubstitutionFormatString(json_format=error, content_type="application/json"),
    )


def _details_header(details: bytes) -> tuple[pb.HeaderValueOption, ...]:
    return (set_header(STATUS_DETAILS, _base64(details)),) if details else ()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()


def _text(text: str) -> pb.SubstitutionFormatString:
    return pb.SubstitutionFormatString(text_format_source=pb.DataSource(inline_string=text))


def _request_id() -> pb.HeaderValueOption:
    return set_header("request_id", _REQUEST_ID)
