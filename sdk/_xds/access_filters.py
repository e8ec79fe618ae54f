"""Filters of the option ``access``: API keys, tokens, rules and limits.

The listener has them disabled, and gets their configuration by extension config discovery (ECDS): a change does not
touch the listener, so no connection is drained. The routes enable those that the options need.
https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/extension

    api-keys   lua           x-api-key → its name, by the digest of the key
    jwt        jwt_authn     token → its claims; an invalid token ends the call
    rules      rbac          path, application, claims, name of the API key, certificate → may it pass?
    limits     local_ratelimit

What they find out about the client goes to the replica in headers with names of the SDK. The listener removes these
from each request before anything else happens to it, so that no client can send them (:func:`strip_identity`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import (
    API_KEY_HEADER,
    CONSOLE_PATH,
    DOCS_PATH,
    IDENTITY_HEADERS,
    NODE_SECRET_HEADER,
    OPENAPI_PATH,
    PAGES_PREFIX,
    PROXY_HEALTH_PATH,
    TOKEN_HEADER,
)
from sdk._xds.api_key_script import api_key_script
from sdk._xds.packing import Resource, pack, pack_resource, type_url
from sdk.access import ApiKey, Certificate, Token, claim_path

if TYPE_CHECKING:
    from sdk.access import Access, JwtIssuer, Limit, Rule, Who

API_KEYS, JWT, RULES, LIMITS = "api-keys", "jwt", "rules", "limits"
#: Key of our metadata on a route, with its application, or that the proxy itself answers.
ROUTE_METADATA = "sdk"
_PROXY = "proxy"
#: The method of a request whose path is that of no method and of no route.
NO_METHOD = "/"
_TYPES = {API_KEYS: pb.Lua, JWT: pb.JwtAuthentication, RULES: pb.RbacFilter, LIMITS: pb.LocalRateLimit}
_JWT_METADATA, _PAYLOAD = "envoy.filters.http.jwt_authn", "payload"
# Tokens that each of Envoy's threads remembers as verified: a signature takes 80 µs, a lookup 5.
_CACHED_TOKENS = 1000
_MAX_TOKEN = 64 << 10
# Identities whose calls are counted at a time; the one that was used least recently makes room.
_MAX_IDENTITIES = 10_000
# Of the built-in services of `Access.open`.
_OPEN = {
    "health": ("/grpc.health.v1.Health/",),
    "reflection": ("/grpc.reflection.",),
    "serve_api": ("/ray.serve.RayServeAPIService/",),
    "openapi": (OPENAPI_PATH,),
}
# Load balancers have no credentials, and browsers none for a page. The health check says only whether the proxy serves,
# and the files of pages are the same everywhere.
_ALWAYS_OPEN = (
    pb.StringMatcher(exact=PROXY_HEALTH_PATH),
    pb.StringMatcher(prefix=PAGES_PREFIX),
    *(pb.StringMatcher(exact=f"{path}{end}") for path in (CONSOLE_PATH, DOCS_PATH) for end in ("", "/")),
)


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """The keys with which Envoy checks credentials.

    Attributes:
        jwks: Issuer → its JSON Web Key Set. Tokens of an issuer without one are not accepted.
        api_keys: SHA-256 of an API key in hexadecimal → the key's name.
    """

    jwks: Mapping[str, str] = field(default_factory=dict)
    api_keys: Mapping[str, str] = field(default_factory=dict)


def access_filters(source: pb.ConfigSource) -> list[pb.HttpFilter]:
    """Return the filters, disabled, in the order in which a call passes them.

    Args:
        source: Where Envoy gets their configuration from.
    """
    return [
        pb.HttpFilter(
            name=name,
            config_discovery=pb.ExtensionConfigSource(config_source=source, type_urls=[type_url(kind)]),
            disabled=True,
        )
        for name, kind in _TYPES.items()
    ]


def strip_identity() -> pb.CoreTypedExtensionConfig:
    """Return the extension that removes the headers of :data:`IDENTITY_HEADERS` before the request is routed."""
    mutations = [pb.HeaderMutation(remove=name) for name in (*IDENTITY_HEADERS, NODE_SECRET_HEADER)]
    return pb.CoreTypedExtensionConfig(
        name="strip-identity", typed_config=pack(pb.EarlyHeaderMutation(mutations=mutations))
    )


def enabled_filters(access: Access | None) -> dict[str, Packed]:
    """Return the ``typed_per_filter_config`` that enables the filters that the options need."""
    if access is None:
        return {}
    needed = {
        API_KEYS: access.api_keys is not None,
        JWT: bool(access.issuers),
        RULES: access.rules is not None,
        LIMITS: bool(access.limits_per_s),
    }
    return {name: pack(pb.RouteFilterConfig(config=Packed())) for name, is_needed in needed.items() if is_needed}


def filter_configs(access: Access | None, keys: KeyMaterial) -> dict[str, Resource]:
    """Return the configuration of each filter, by its name."""
    configs = {
        API_KEYS: pb.Lua(
            default_source_code=pb.DataSource(inline_string=api_key_script(API_KEY_HEADER, keys.api_keys))
        ),
        JWT: _jwt(access.issuers if access is not None else (), keys.jwks),
        RULES: _rules(access) if access is not None and access.rules is not None else pb.RbacFilter(),
        LIMITS: _limits(access.limits_per_s if access is not None else ()),
    }
    return {
        name: pack_resource(pb.CoreTypedExtensionConfig(name=name, typed_config=pack(config)))
        for name, config in configs.items()
    }


def route_metadata(access: Access | None, application: str, method: str = "") -> pb.Metadata | None:
    """Return the metadata by which rules and limits know a route's application and method; None if none asks.

    Args:
        access: The option.
        application: Name of the application.
        method: Path of the method, if it is not the path of the calls, or :data:`NO_METHOD`.
    """
    if access is None:
        return None
    named: tuple[Rule | Limit, ...] = (*(access.rules or ()), *access.limits_per_s)
    found = {"application": application} if any(each.applications for each in named) else {}
    if method:
        found["method"] = method[1:]
        service = method[1:].partition("/")[0]
        for number, limit in enumerate(access.limits_per_s):
            if {service, method[1:]} & {*limit.methods}:
                found[_limit_key(number)] = str(number)
    if not found:
        return None
    metadata = pb.Metadata()
    metadata.filter_metadata[ROUTE_METADATA].update(found)
    return metadata


def proxy_metadata() -> pb.Metadata:
    """Return the metadata of a route whose calls the proxy answers."""
    metadata = pb.Metadata()
    metadata.filter_metadata[ROUTE_METADATA].update({_PROXY: "yes"})
    return metadata


def names_methods(access: Access | None) -> bool:
    """Return True if a rule or a limit applies to some methods only."""
    if access is None:
        return False
    named: tuple[Rule | Limit, ...] = (*(access.rules or ()), *access.limits_per_s)
    return any(each.methods for each in named)


def _limit_key(number: int) -> str:
    """Return the key of a limit in the metadata of the routes that it applies to."""
    return f"limit-{number}"


# -- tokens -----------------------------------------------------------------------------------


def _jwt(issuers: Iterable[JwtIssuer], jwks: Mapping[str, str]) -> pb.JwtAuthentication:
    known = [issuer for issuer in issuers if issuer.issuer in jwks]
    providers = {f"issuer-{number}": _provider(issuer, jwks[issuer.issuer]) for number, issuer in enumerate(known)}
    # A missing token is not the end: there may be an API key, or a rule that needs nothing. A wrong one is.
    requirements = [pb.JwtRequirement(provider_name=name) for name in providers]
    requirements.append(pb.JwtRequirement(allow_missing=Empty()))
    requirement = pb.JwtRequirement(requires_any=pb.JwtRequirementOrList(requirements=requirements))
    rule = pb.RequirementRule(match=pb.RouteMatch(prefix="/"), requires=requirement)
    return pb.JwtAuthentication(providers=providers, rules=[rule] if providers else [])


def _provider(issuer: JwtIssuer, jwks: str) -> pb.JwtProvider:
    return pb.JwtProvider(
        issuer=issuer.issuer,
        audiences=issuer.audiences,
        local_jwks=pb.DataSource(inline_string=jwks),
        forward=issuer.forward_token,
        # Without this Envoy would take a token from the query of the path, too.
        from_headers=[pb.JwtHeader(name="authorization", value_prefix="Bearer ")],
        forward_payload_header=TOKEN_HEADER,
        payload_in_metadata=_PAYLOAD,
        clock_skew_seconds=issuer.clock_skew_s,
        require_expiration=issuer.require_expiration,
        jwt_cache_config=pb.JwtCacheConfig(jwt_cache_size=_CACHED_TOKENS, jwt_max_token_size=_MAX_TOKEN),
        normalize_payload_in_metadata=pb.JwtProvider.NormalizePayload(space_delimited_claims=["scope"]),
    )


# -- rules ------------------------------------------------------------------------------------


def _rules(access: Access) -> pb.RbacFilter:
    # Rules for the same calls are one policy: their methods are compared once.
    principals: dict[tuple[tuple[str, ...], tuple[str, ...]], list[pb.Principal]] = {}
    for rule in access.rules or ():
        found = principals.setdefault((rule.applications, rule.methods), [])
        found += [principal for who in rule.identities for principal in _principals(who)]
    policies = {
        f"rule-{index}": pb.Policy(permissions=[_permission(*calls)], principals=found)
        for index, (calls, found) in enumerate(principals.items())
    }
    opened = [_path(pb.StringMatcher(prefix=prefix)) for name in access.open for prefix in _OPEN[name]]
    opened += map(_path, _ALWAYS_OPEN)
    # An application may have a route of such a path, too.
    is_of_proxy = _of_route(_PROXY, _text(pb.StringMatcher(exact="yes")))
    permission = _all_of(is_of_proxy, _one_of(opened))
    policies["open"] = pb.Policy(permissions=[permission], principals=[pb.Principal(any=True)])
    return pb.RbacFilter(rules=pb.Rbac(action=pb.Rbac.ALLOW, policies=policies))


def _permission(applications: Iterable[str], methods: Iterable[str]) -> pb.Permission:
    conditions = []
    if of_applications := [_of_route("application", _text(pb.StringMatcher(exact=each))) for each in applications]:
        conditions.append(_one_of(of_applications))
    if of_paths := [_path(matcher) for method in methods for matcher in method_matchers(method)]:
        # The path says nothing where the route does: `/{kind}/{name}` matches what looks like another method.
        is_route_of_method = _of_route("method", pb.ValueMatcher(present_match=True))
        by_path = _all_of(_one_of(of_paths), pb.Permission(not_rule=is_route_of_method))
        by_route = [_of_route("method", _text(_method_of_route(method))) for method in methods]
        conditions.append(_one_of([by_path, *by_route]))
    return _all_of(*conditions) if conditions else pb.Permission(any=True)


def _method_of_route(method: str) -> pb.StringMatcher:
    return pb.StringMatcher(exact=method) if "/" in method else pb.StringMatcher(prefix=f"{method}/")


def _all_of(*conditions: pb.Permission) -> pb.Permission:
    return pb.Permission(and_rules=pb.Permission.Set(rules=conditions))


def _one_of(conditions: Iterable[pb.Permission]) -> pb.Permission:
    return pb.Permission(or_rules=pb.Permission.Set(rules=conditions))


def _text(matcher: pb.StringMatcher) -> pb.ValueMatcher:
    return pb.ValueMatcher(string_match=matcher)


def _of_route(key: str, value: pb.ValueMatcher) -> pb.Permission:
    path = [pb.MetadataMatcher.PathSegment(key=key)]
    matcher = pb.MetadataMatcher(filter=ROUTE_METADATA, path=path, value=value)
    return pb.Permission(sourced_metadata=pb.SourcedMetadata(metadata_matcher=matcher, metadata_source=pb.ROUTE))


def method_matchers(method: str) -> tuple[pb.StringMatcher, ...]:
    """Return the matchers of the path for a service or one of its methods, as routes match it: as it is.

    The path of a call that is not gRPC may have a query.
    """
    if "/" in method:
        return pb.StringMatcher(exact=f"/{method}"), pb.StringMatcher(prefix=f"/{method}?")
    return (pb.StringMatcher(prefix=f"/{method}/"),)


def _path(matcher: pb.StringMatcher) -> pb.Permission:
    return pb.Permission(header=pb.HeaderMatcher(name=":path", string_match=matcher))


def _principals(who: Who) -> Iterator[pb.Principal]:
    if who == "anyone":
        yield pb.Principal(any=True)
    elif who == "authenticated":
        for identity in (Token(), ApiKey("*"), Certificate("*")):
            yield from _principals(identity)
    elif isinstance(who, Token):
        yield _token(who)
    elif isinstance(who, ApiKey):
        name = pb.HeaderMatcher(name=API_KEY_HEADER)
        if who.name == "*":
            name.present_match = True
        else:
            name.string_match.exact = who.name
        yield pb.Principal(header=name)
    elif isinstance(who, Certificate):
        yield _certificate(who.name)


def _token(token: Token) -> pb.Principal:
    conditions = []
    for name, values in token.claims.items():
        one_of: list[pb.ValueMatcher] = []
        for value in values:
            text = pb.ValueMatcher(string_match=_pattern(value))
            one_of += [text, pb.ValueMatcher(list_match=pb.ListMatcher(one_of=text))]
        conditions.append(_claim(name, pb.ValueMatcher(or_match=pb.OrMatcher(value_matchers=one_of))))
    # Only a verified token has claims, and each has an issuer: one of an issuer that is not known was refused before.
    if token.issuer is not None:
        conditions.append(_claim("iss", _text(pb.StringMatcher(exact=token.issuer))))
    elif not conditions:
        conditions.append(_claim("iss", pb.ValueMatcher(present_match=True)))
    return pb.Principal(and_ids=pb.Principal.Set(ids=conditions))


def _claim(name: str, value: pb.ValueMatcher) -> pb.Principal:
    return pb.Principal(
        metadata=pb.MetadataMatcher(
            filter=_JWT_METADATA,
            path=[pb.MetadataMatcher.PathSegment(key=step) for step in (_PAYLOAD, *claim_path(name))],
            value=value,
        )
    )


def _certificate(name: str) -> pb.Principal:
    config = pb.MtlsAuthenticated(any_validated_client_certificate=True)
    if name != "*":
        # Not the subject: a pattern could match a part of it that its owner chose.
        kind = pb.SubjectAltNameMatcher.URI if "://" in name else pb.SubjectAltNameMatcher.DNS
        config = pb.MtlsAuthenticated(san_matcher=pb.SubjectAltNameMatcher(san_type=kind, matcher=_pattern(name)))
    return pb.Principal(custom=pb.CoreTypedExtensionConfig(name="mtls", typed_config=pack(config)))


def _pattern(pattern: str) -> pb.StringMatcher:
    if pattern == "*":
        return pb.StringMatcher(safe_regex=pb.RegexMatcher(regex=".*"))
    if pattern.endswith("*"):
        return pb.StringMatcher(prefix=pattern[:-1])
    if pattern.startswith("*"):
        return pb.StringMatcher(suffix=pattern[1:])
    return pb.StringMatcher(exact=pattern)


# -- limits -----------------------------------------------------------------------------------

_Action = pb.RateLimit.Action
_ALWAYS = pb.RuntimeFractionalPercent(default_value=pb.FractionalPercent(numerator=100))


def _limits(limits: Iterable[Limit]) -> pb.LocalRateLimit:
    descriptors: list[pb.LocalRateLimitDescriptor] = []
    rate_limits: list[pb.RateLimit] = []
    for number, limit in enumerate(limits):
        bucket = _bucket(limit)
        for application in limit.applications or ("",):
            for identity in _identities(limit):
                entries = [pb.RateLimitDescriptor.Entry(key="limit", value=str(number))]
                if application:
                    entries.append(pb.RateLimitDescriptor.Entry(key="application", value=application))
                # Without a value: each new one gets a separate bucket.
                entries += [pb.RateLimitDescriptor.Entry(key=action_key(action)) for action in identity]
                descriptors.append(pb.LocalRateLimitDescriptor(entries=entries, token_bucket=bucket))
        for counts in _counting(number, limit):
            counted = tuple(_counted(limit, counts))
            rate_limits += [pb.RateLimit(actions=[*counted, *identity]) for identity in _identities(limit)]
    # Without a bucket for all others, so that calls that no limit applies to have no x-ratelimit-* metadata.
    return pb.LocalRateLimit(
        stat_prefix="grpc",
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        descriptors=descriptors,
        enable_x_ratelimit_headers=pb.DRAFT_VERSION_03,
        rate_limited_as_resource_exhausted=True,
        rate_limits=rate_limits,
        max_dynamic_descriptors=_uint(_MAX_IDENTITIES),
        enable_retry_after_header=True,
    )


def _counting(number: int, limit: Limit) -> Iterator[pb.RateLimit.Action]:
    """Yield the actions that make the descriptor entry of a limit; all make the same one, so that calls count once."""
    value = str(number)
    if not limit.methods:
        yield _Action(generic_key=_Action.GenericKey(descriptor_key="limit", descriptor_value=value))
        return
    for path in [each for method in limit.methods for each in method_matchers(method)]:
        header = pb.HeaderMatcher(name=":path", string_match=path)
        match = _Action.HeaderValueMatch(descriptor_key="limit", descriptor_value=value, headers=[header])
        yield _Action(header_value_match=match)
    yield _of_route_entry("limit", _limit_key(number))


def _counted(limit: Limit, counts: pb.RateLimit.Action) -> Iterator[pb.RateLimit.Action]:
    """Yield the actions that find out whether a limit applies to a call. Without a value there is no descriptor."""
    yield counts
    if limit.applications:
        yield _of_route_entry("application", "application")


def _of_route_entry(key: str, name: str) -> pb.RateLimit.Action:
    path = pb.MetadataKey(key=ROUTE_METADATA, path=[pb.MetadataKey.PathSegment(key=name)])
    source = _Action.MetaData.ROUTE_ENTRY
    return _Action(metadata=_Action.MetaData(descriptor_key=key, metadata_key=path, source=source))


def _claim_action(claim: str) -> pb.RateLimit.Action:
    path = [pb.MetadataKey.PathSegment(key=step) for step in (_PAYLOAD, claim)]
    key = pb.MetadataKey(key=_JWT_METADATA, path=path)
    return _Action(metadata=_Action.MetaData(descriptor_key=claim, metadata_key=key))


def _header_action(header: str) -> pb.RateLimit.Action:
    return _Action(request_headers=_Action.RequestHeaders(header_name=header, descriptor_key=header))


# A client is known by the subject of its token, by the name of its API key, and by its certificate.
_IDENTITIES: tuple[tuple[pb.RateLimit.Action, ...], ...] = (
    (_claim_action("iss"), _claim_action("sub")),
    (_header_action(API_KEY_HEADER),),
    (_header_action("x-forwarded-client-cert"),),
)


def _identities(limit: Limit) -> tuple[tuple[pb.RateLimit.Action, ...], ...]:
    return _IDENTITIES if limit.per_identity else ((),)


def action_key(action: pb.RateLimit.Action) -> str:
    """Return the key of the descriptor entry that an action of :data:`_IDENTITIES` makes."""
    return action.metadata.descriptor_key or action.request_headers.descriptor_key


def _bucket(limit: Limit) -> pb.TokenBucket:
    """Return the bucket of a limit: a whole number of tokens after a whole number of milliseconds."""
    rate = limit.calls_per_s
    assert rate is not None  # these limits have it
    burst = limit.burst if limit.burst is not None else max(1, ceil(rate))
    tokens = max(1, round(rate / 10)) if rate >= 10 else 1
    interval = Duration()
    interval.FromNanoseconds(round(tokens / rate * 1e9))
    return pb.TokenBucket(max_tokens=burst, tokens_per_fill=_uint(min(tokens, burst)), fill_interval=interval)


def _uint(value: int) -> UInt32Value:
    return UInt32Value(value=value)
