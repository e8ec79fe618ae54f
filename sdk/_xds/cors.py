"""CORS: which pages may call, and which headers they may send and read. Without origins there is no filter.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/cors_filter,
https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import BoolValue

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

_FILTER = "envoy.filters.http.cors"
# What the clients of gRPC-Web and Connect send, and the metadata of Ray Serve's guide.
_SENT = (
    "content-type", "accept", "authorization", "x-grpc-web", "x-user-agent", "grpc-timeout",
    "connect-protocol-version", "connect-timeout-ms", "connect-accept-encoding", "connect-content-encoding",
    "application", "request_id", "multiplexed_model_id", "traceparent", "tracestate",
)  # fmt: skip
_READ = (
    "grpc-status", "grpc-message", "grpc-status-details-bin", "call-status", "request_id", "retry-after",
    "connect-content-encoding", "www-authenticate", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
)  # fmt: skip
_METHODS = "GET,POST,PUT,PATCH,DELETE"
# Seconds that a browser keeps the answer to a preflight; Chromium keeps it for at most two hours.
_MAX_AGE = "7200"


def cors_filters() -> list[pb.HttpFilter]:
    """Return the filters. They are the first, so that every refusal can be read by the page.

    Envoy repeats the origin of the request in its answer, and does not say so. A cache must not give that answer, or
    the one without an origin, to another page: https://fetch.spec.whatwg.org/#cors-protocol-and-http-caches
    """
    vary = pb.HeaderMutation(append=pb.HeaderValueOption(header=pb.HeaderValue(key="vary", value="origin")))
    return [
        pb.HttpFilter(name=_FILTER, typed_config=pack(pb.Cors())),
        pb.HttpFilter(
            name="vary-by-origin",
            typed_config=pack(pb.HeaderMutationFilter(mutations=pb.Mutations(response_mutations=[vary]))),
        ),
    ]


def cors_policy(origins: tuple[str, ...], headers: tuple[str, ...], *, credentials: bool) -> dict[str, Any]:
    """Return the ``typed_per_filter_config`` entry of the virtual host; empty without origins.

    Args:
        origins: ``"https://app.example.com"``, or ``"*"`` for every page.
        headers: Metadata to send and to read, in addition to the headers of the protocols.
        credentials: Whether cookies and other credentials of the browser may be sent.
    """
    if not origins:
        return {}
    policy = pb.CorsPolicy(
        allow_origin_string_match=[pb.StringMatcher(exact=origin) for origin in origins],
        allow_methods=_METHODS,
        allow_headers=",".join((*_SENT, *headers)),
        # Over Connect and JSON, trailing metadata are headers with another name: sdk/_web/http_call.py.
        expose_headers=",".join((*_READ, *headers, *(f"trailer-{name}" for name in headers))),
        max_age=_MAX_AGE,
        allow_credentials=BoolValue(value=credentials),
        # The replica would refuse it, without saying why.
        forward_not_matching_preflights=BoolValue(value=False),
    )
    return {_FILTER: pack(policy)}
