"""The rules of a deployment's ``allow``: who may call an RPC. Calls of RPCs without one pay nothing.

They mean what the ingress's own mean (``sdk/_xds/access_filters.py``): a rule sees all claims of a token, also those
that the handler does not see.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from sdk._wire.peer import auth_context_of
from sdk._wire.route import Route
from sdk.access import ApiKey, Certificate, Token, claim_path
from sdk.context import API_KEY_NAME, PEM_CERTIFICATE, TOKEN_CLAIMS, ServicerContext, context_of
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.route import Answer
    from sdk.access import CallRule, Who

# Clients whose identity is remembered for one RPC: a client calls often.
_REMEMBERED = 256
_CREDENTIALS = (API_KEY_NAME, PEM_CERTIFICATE, TOKEN_CLAIMS)

AuthContext = Mapping[str, Sequence[bytes]]


def ruled(rule: CallRule, answer: Answer) -> Answer:
    """Return a way to answer that refuses calls of clients whom the rule does not allow.

    Args:
        rule: The rule of the RPC.
        answer: Answers the calls that it allows.
    """

    @functools.lru_cache(maxsize=_REMEMBERED)
    def is_allowed(*identity: bytes | None) -> bool:
        return is_one_of(rule.identities, auth_context_of(*identity))

    async def answer_allowed(call: Call, route: Route) -> None:
        if not is_allowed(*call.identity):
            request = Route.decode_request(route, call.peek_message()) if rule.functions else None
            try:
                check_request(rule, request, context_of(call), route.method.name, auth_context_of(*call.identity))
            except RpcError as refusal:
                call.host.count_rejected(route.method.path, refusal.code.value[0], "no_rule")
                raise
        await answer(call, route)

    return answer_allowed


def check_call(rule: CallRule, request: Any, context: Any, method: str) -> None:
    """Check a call that no wire server has received: of Ray Serve's own proxy, or of its plain handles.

    Args:
        rule: The rule of the RPC.
        request: The request; the stream of a method that takes one.
        context: What the handler gets as its context. Only ours says who calls, so that a function can decide.
        method: Name of the RPC.

    Raises:
        RpcError: The client may not make this call.
    """
    if not isinstance(context, ServicerContext):
        raise _refusal(method, {})
    known = context.auth_context()
    if not is_one_of(rule.identities, known):
        check_request(rule, request, context, method, known)


def check_request(rule: CallRule, request: Any, context: Any, method: str, known: AuthContext) -> None:
    """Check the call of a client that is not among the rule's identities.

    Args:
        rule: The rule of the RPC.
        request: The request.
        context: The context of the call.
        method: Name of the RPC.
        known: The client, as :func:`sdk._wire.peer.auth_context_of` describes it.

    Raises:
        RpcError: The client may not make this call.
    """
    if not any(function(request, context) for function in rule.functions):
        raise _refusal(method, known)


def _refusal(method: str, known: AuthContext) -> RpcError:
    if any(key in known for key in _CREDENTIALS):
        return RpcError(grpc.StatusCode.PERMISSION_DENIED, f"The deployment does not allow {method} for this client.")
    return RpcError(
        grpc.StatusCode.UNAUTHENTICATED,
        f"The call needs credentials: the deployment allows {method} for known clients only.",
        trailing_metadata=(("www-authenticate", "Bearer"),),
    )


def is_one_of(identities: Sequence[Who], known: AuthContext) -> bool:
    """Return True if a client is one of these.

    Args:
        identities: Identities, or ``"authenticated"``.
        known: The client, as :func:`sdk._wire.peer.auth_context_of` describes it.

    Example:
        >>> is_one_of(["authenticated"], {}), is_one_of([ApiKey("batch")], {"api_key_name": [b"batch"]})
        (False, True)
    """
    return any(_is(who, known) for who in identities)


def _is(who: Who, known: AuthContext) -> bool:
    if isinstance(who, Token):
        return TOKEN_CLAIMS in known and _has_claims(who, json.loads(known[TOKEN_CLAIMS][0]))
    if isinstance(who, ApiKey):
        return any(who.name in ("*", name.decode()) for name in known.get(API_KEY_NAME, ()))
    if isinstance(who, Certificate):
        return PEM_CERTIFICATE in known and _is_named(who.name, known[PEM_CERTIFICATE][0])
    return any(key in known for key in _CREDENTIALS)  # "authenticated"


def _has_claims(token: Token, claims: Mapping[str, Any]) -> bool:
    issuer = claims.get("iss")
    return (issuer is not None if token.issuer is None else issuer == token.issuer) and all(
        any(_fits(pattern, value) for pattern in patterns for value in _values(claims, name))
        for name, patterns in token.claims.items()
    )


def _values(claims: Any, name: str) -> Sequence[Any]:
    """Return the values of a claim: those of a list, and the words of a scope."""
    for step in claim_path(name):
        claims = claims.get(step) if isinstance(claims, Mapping) else None
    if name == "scope" and isinstance(claims, str):
        return claims.split(" ")
    return claims if isinstance(claims, list) else [claims]


def _fits(pattern: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value.endswith(pattern[1:]) if pattern.startswith("*") else value == pattern


def _is_named(pattern: str, pem: bytes) -> bool:
    """Return True if a certificate has a name: a URI if the pattern contains ``://``, else a DNS name."""
    if pattern == "*":
        return True
    from cryptography import x509  # not before a client has a certificate

    try:
        names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    kind = x509.UniformResourceIdentifier if "://" in pattern else x509.DNSName
    return any(_fits(pattern, name) for name in names.value.get_values_for_type(kind))
