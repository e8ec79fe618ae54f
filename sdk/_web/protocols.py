"""The choice of the protocol of a request that is not gRPC, by its content-type, its verb and its path."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

from sdk._web.connect import ConnectStreamCall, stream_codec
from sdk._web.grpc_web import GrpcWebCall, is_grpc_web
from sdk._web.http_call import NDJSON, HeadCall, HttpCall, JsonStreamCall
from sdk._web.http_rules import HttpRules
from sdk._web.raw_call import RawCall, RawStreamCall
from sdk._wire.metadata import INVALID_ARGUMENT, UNIMPLEMENTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdk._web.http_rules import RuleMatch
    from sdk._web.web_call import WebCall
    from sdk._wire.call import Call, Transport
    from sdk._wire.host import Host
    from sdk._wire.route import Route
    from sdk._wire.server import WireServer

#: Content-types of messages, for clients that sent another one.
ACCEPTED = (
    "application/json, application/proto, application/connect+json, application/connect+proto, "
    "application/grpc-web+proto, application/grpc-web-text+proto, application/grpc+proto"
)
_Kind = TypeVar("_Kind", bound="WebCall")
_JSON_KINDS = frozenset({b"application/json", NDJSON})
_PROTO = b"application/proto"
_WRONG_VERB = b"HTTP/1.1 405 Method Not Allowed\r\n"
_WRONG_TYPE = b"HTTP/1.1 415 Unsupported Media Type\r\n"


class _Request(NamedTuple):
    """The first arguments of the constructor of a call."""

    host: Host
    transport: Transport
    route: Route | None
    path: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    on_finished: Callable[[Call], None]


def serve_web(server: WireServer) -> None:
    """Have a wire server answer calls over gRPC-Web, Connect, and JSON over HTTP."""
    server.host.open_web_call = WebProtocols(server.routes).open_call


class WebProtocols:
    """Opens the calls of one wire server that are not gRPC.

    Args:
        routes: The methods by path.
    """

    def __init__(self, routes: dict[bytes, Route]) -> None:
        self._routes = routes
        self._rules: HttpRules | None = None

    @property
    def rules(self) -> HttpRules:
        """The routes of ``google.api.http``, read when the first call needs them."""
        if self._rules is None:
            self._rules = HttpRules(route.method for route in self._routes.values())
        return self._rules

    def open_call(
        self,
        host: Host,
        transport: Transport,
        verb: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
    ) -> Call | None:
        """Return the call of a request; None if it is that of another form of gRPC.

        Args:
            host: Limits, counters and hooks.
            transport: Takes the response.
            verb: The HTTP method.
            target: The path with its query.
            headers: The request's headers.
            fields: The headers by name.
            on_finished: Called once, when the response has been handed to the transport.
        """
        kind = fields.get(b"content-type", b"")
        if kind not in _JSON_KINDS:
            kind = kind.partition(b";")[0].strip().lower()
        path = target.partition(b"?")[0]
        request = _Request(host, transport, self._routes.get(path), path, headers, fields, on_finished)
        if verb == b"POST" and kind not in _JSON_KINDS:
            if is_grpc_web(kind):
                return _new(GrpcWebCall, request, content_type=kind)
            codec = stream_codec(kind)
            if codec is not None:
                return _connect_stream(request, codec)
            if kind.startswith(b"application/grpc"):
                return None
        if request.route is not None:
            return _method_call(request, request.route, verb, target, kind)
        return self._rule_call(request, verb, target)

    def _rule_call(self, request: _Request, verb: bytes, target: bytes) -> WebCall:
        match, verbs = self.rules.match(verb.decode("latin-1"), target.decode("latin-1"))
        if match is None:
            if not verbs:
                return _new(_kind_of_refusal(verb), request, codec="json")
            allowed = ", ".join(sorted(verbs))
            path = request.path.decode("latin-1")
            text = f"{path} takes {allowed}, not {verb.decode('latin-1')}"
            return _refused(request, _WRONG_VERB, UNIMPLEMENTED, text, allowed, _kind_of_refusal(verb))
        method_path = match.rule.method.path.encode()
        route = self._routes[method_path]
        call = _http_call(request._replace(route=route, path=method_path), route, "json", match)
        call.has_other_path = True
        return call


def _new(kind: type[_Kind], request: _Request, **options: Any) -> _Kind:
    """Return a call, with a span if its server makes spans, and counted if it has limits of calls at once."""
    make = request.host.make_call
    call: _Kind = kind(*request, **options) if make is None else make(*request, kind=kind, **options)
    return call


def _connect_stream(request: _Request, codec: str) -> WebCall:
    route = request.route
    if route is None or route.server_streaming or route.client_streaming:
        return _new(ConnectStreamCall, request, codec=codec)
    text = f"{route.method.path[1:]} is unary: its content-type is application/{codec}, not that of a stream"
    return _refused(request, _WRONG_TYPE, UNIMPLEMENTED, text)


def _method_call(request: _Request, route: Route, verb: bytes, target: bytes, kind: bytes) -> WebCall:
    """Return the call of a request to the path of a method, ``/pkg.Service/Method``."""
    if verb == b"POST":
        if kind in _JSON_KINDS:
            return _http_call(request, route, "json")
        if kind == _PROTO and not route.server_streaming and not route.client_streaming:
            return _http_call(request, route, "proto")
    name = route.method.path[1:]
    if verb == b"GET":
        return _get(request, route, target)
    if verb != b"POST":
        allowed = "GET, POST" if _takes_get(route) else "POST"
        text = f"{name} takes {allowed}, not {verb.decode('latin-1')}"
        return _refused(request, _WRONG_VERB, UNIMPLEMENTED, text, allowed, _kind_of_refusal(verb))
    given = repr(kind.decode("latin-1")) if kind else "missing"
    text = f"the content-type of a call of {name} is one of {ACCEPTED}; it is {given}"
    return _refused(request, _WRONG_TYPE, INVALID_ARGUMENT, text)


def _takes_get(route: Route) -> bool:
    return route.method.idempotency == "no_side_effects" and not route.client_streaming


def _get(request: _Request, route: Route, target: bytes) -> WebCall:
    """Return the call of a GET, https://connectrpc.com/docs/protocol#unary-get-request."""
    name = route.method.path[1:]
    if not _takes_get(route):
        text = f"{name} takes POST, not GET: its proto does not set idempotency_level = NO_SIDE_EFFECTS"
        return _refused(request, _WRONG_VERB, UNIMPLEMENTED, text, "POST")
    # A character of latin-1 for each byte: a message may be binary, and compressed.
    query = parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    given = {key: values[-1] for key, values in query.items()}
    codec = given.get("encoding", "json")
    if codec not in ("json", "proto") or (codec == "proto" and route.server_streaming):
        return _refused(request, _WRONG_TYPE, INVALID_ARGUMENT, f"the parameter encoding={codec} must be json or proto")
    call = _http_call(request, route, codec)
    message = given.get("message", "{}" if codec == "json" else "")
    data = message.encode("latin-1")
    if given.get("base64") == "1":
        try:
            data = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            call.refuse(b"HTTP/1.1 400 Bad Request\r\n", INVALID_ARGUMENT, "the parameter message is not base64")
    if given.get("connect", "v1") != "v1":
        call.refuse(b"HTTP/1.1 400 Bad Request\r\n", INVALID_ARGUMENT, "the parameter connect must be v1")
    call.give_message(data, given.get("compression", ""))
    return call


def _http_call(request: _Request, route: Route, codec: str, match: RuleMatch | None = None) -> HttpCall:
    is_stream = route.server_streaming
    if match is not None and match.rule.has_raw_response:
        if is_stream:
            return _new(RawStreamCall, request, match=match)
        return _new(RawCall, request, codec=codec, match=match)
    if is_stream:
        return _new(JsonStreamCall, request, match=match)
    return _new(HttpCall, request, codec=codec, match=match)


def _kind_of_refusal(verb: bytes) -> type[HttpCall]:
    return HeadCall if verb == b"HEAD" else HttpCall


def _refused(
    request: _Request, status: bytes, code: int, details: str, allowed: str = "", kind: type[HttpCall] = HttpCall
) -> HttpCall:
    call = _new(kind, request._replace(route=None), codec="json")
    call.refuse(status, code, details, allowed)
    return call
