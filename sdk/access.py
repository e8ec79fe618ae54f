"""Access of clients: the option ``access`` of the ingress.

Envoy verifies tokens, API keys and certificates, applies the rules, and passes the client's identity to the replica.
Without the option it does none of this, and no call costs more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.context import ServicerContext

BuiltinService = Literal["health", "reflection", "serve_api", "openapi"]
_BUILTIN = get_args(BuiltinService)
_METHOD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(/[A-Za-z_]\w*)?\Z")
#: Names of API keys: they appear in a file, a header and the access log.
API_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}\Z")
_MAX_RATE = 1_000_000


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """An issuer whose tokens (https://www.rfc-editor.org/rfc/rfc7519) identify clients.

    A client sends its token as ``authorization: Bearer …`` metadata. A call with a token that is not valid ends
    UNAUTHENTICATED, also where none is needed.

    Attributes:
        issuer: Value of the tokens' ``iss``.
        jwks: Its public keys (https://www.rfc-editor.org/rfc/rfc7517): the absolute path of a file on every node with a
            proxy, the URL of the issuer, or the JSON itself. Files are read again when they change, URLs every
            ``refresh_s``. While a file or URL gives no valid keys, the last ones stay.
        audiences: A token must be for one of these (``aud``); empty for any.
        claims: Names of the claims that handlers see; None for all.
        clock_skew_s: Seconds by which the clocks of issuer and proxy may differ.
        require_expiration: Reject tokens without ``exp``, which never expire.
        forward_token: Leave the token in the metadata that handlers see. By default Envoy removes it.
        refresh_s: Seconds between two reads of a URL.
    """

    issuer: str
    jwks: str
    audiences: tuple[str, ...] = ()
    claims: tuple[str, ...] | None = None
    clock_skew_s: int = 60
    require_expiration: bool = True
    forward_token: bool = False
    refresh_s: float = 300.0

    def __post_init__(self) -> None:
        _set_tuple(self, "audiences")
        if self.claims is not None:
            _set_tuple(self, "claims")

    @property
    def jwks_path(self) -> str | None:
        """The path of the file with its keys, or None."""
        return self.jwks if os.path.isabs(self.jwks) else None

    @property
    def jwks_url(self) -> str | None:
        """The URL of its keys, or None."""
        return self.jwks if self.jwks.startswith(("https://", "http://")) else None

    def _problems(self) -> Iterator[str]:
        if not _is_text(self.issuer):
            yield f"issuer must be the value of `iss`, not {self.issuer!r}"
        yield from _text_problems(self, "audiences", "claims")
        if not isinstance(self.jwks, str):
            yield f"jwks must be a path, a URL or JSON, not {type(self.jwks).__name__}"
        elif self.jwks_url is not None:
            if not urlsplit(self.jwks).hostname:
                yield f"jwks {self.jwks!r} is not a URL"
        elif self.jwks_path is None:
            # Not the text itself: it may be a secret.
            yield from (f"jwks, neither an absolute path nor a URL, {what}" for what in _jwks_problems(self.jwks))
        if not _is_number(self.clock_skew_s, 0, 3600) or self.clock_skew_s != int(self.clock_skew_s):
            yield f"clock_skew_s must be a whole number of seconds from 0 to 3600, not {self.clock_skew_s!r}"
        if not _is_number(self.refresh_s, 1, 86400):
            yield f"refresh_s must be a number of seconds from 1 to 86400, not {self.refresh_s!r}"
        for name in ("require_expiration", "forward_token"):
            if not isinstance(getattr(self, name), bool):
                yield f"{name} must be True or False, not {getattr(self, name)!r}"


@dataclass(frozen=True, slots=True)
class Token:
    """Clients with a valid token.

    Attributes:
        issuer: Its issuer; None for each issuer of the options.
        claims: Claims that it must have, all of them: name → value, or several values of which one is enough. ``*`` at
            the start or the end of a value matches any text. A claim that is a list, or a ``scope`` of several
            words, must contain the value. ``a.b`` names the claim ``b`` within ``a``; a name with ``://`` has no parts.
    """

    issuer: str | None = None
    claims: Mapping[str, str | Sequence[str]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if isinstance(self.claims, Mapping):
            claims = {name: (each,) if isinstance(each, str) else _as_tuple(each) for name, each in self.claims.items()}
            object.__setattr__(self, "claims", claims)

    def _problems(self) -> Iterator[str]:
        if self.issuer is not None and not _is_text(self.issuer):
            yield f"issuer must be the value of `iss` or None, not {self.issuer!r}"
        if not isinstance(self.claims, Mapping):
            yield f"claims must be a mapping of names to values, not {self.claims!r}"
            return
        for name, values in self.claims.items():
            if not _is_text(name) or not values or not isinstance(values, tuple):
                yield f"claims must map names to values, not {name!r} to {values!r}"
            else:
                yield from (f"claim {name!r}: {what}" for value in values for what in _pattern_problems(value))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The client with an API key.

    Attributes:
        name: Name of the key in the file ``api_keys``; ``*`` for every key.
    """

    name: str

    def _problems(self) -> Iterator[str]:
        if self.name != "*" and not (isinstance(self.name, str) and API_KEY_NAME.match(self.name)):
            yield f"name must be that of an API key, or '*', not {self.name!r}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Clients with a certificate that ``tls_client_ca`` has signed.

    Attributes:
        name: One of its subject alternative names: a URI such as ``"spiffe://acme/batch"``, or a DNS name. ``*`` at the
            start or the end matches any text; ``"*"`` alone for every certificate.
    """

    name: str

    def _problems(self) -> Iterator[str]:
        yield from (f"name: {what}" for what in _pattern_problems(self.name))


Identity = Token | ApiKey | Certificate
Who = Literal["anyone", "authenticated"] | Identity
#: Returns True if a client may make a call with this request; for ``allow`` of ``@grpc_deployment``.
RequestRule: TypeAlias = "Callable[[Any, ServicerContext], bool]"


@dataclass(frozen=True, slots=True)
class CallRule:
    """The rule of one RPC: these identities may call, and clients for whom one of the functions returns True.

    Attributes:
        identities: Identities, and ``"authenticated"``.
        functions: Functions that decide by the request.
    """

    identities: tuple[Who, ...]
    functions: tuple[RequestRule, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows calls. What no rule allows ends PERMISSION_DENIED, and UNAUTHENTICATED without credentials.

    Attributes:
        who: Who may call: identities, ``"authenticated"`` for every one, ``"anyone"`` for calls without credentials,
            too; one or several.
        applications: Names of the applications; empty for all, and for the built-in services.
        methods: Full names of services (``"greet.Greeter"``) or methods (``"greet.Greeter/SayHello"``); empty for all.
    """

    who: Who | Sequence[Who]
    applications: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        who: Any = self.who
        object.__setattr__(self, "who", (who,) if isinstance(who, str | Identity | Mapping) else _as_tuple(who))
        _set_tuple(self, "applications")
        _set_tuple(self, "methods")

    @property
    def identities(self) -> tuple[Who, ...]:
        """The identities that may call."""
        return self.who  # type: ignore[return-value]  # the constructor has made it a tuple

    def _problems(self) -> Iterator[str]:
        if not isinstance(self.who, tuple) or not self.who:
            yield f"who must name who may call, not {self.who!r}"
            return
        for who in self.who:
            yield from who_problems(who)
        yield from _application_problems(self.applications)
        yield from _method_problems(self.methods)


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits calls a second, calls at once, or both. A call above it ends RESOURCE_EXHAUSTED.

    Attributes:
        calls_per_s: Calls a second on each node, on average.
        burst: Calls at one moment after a pause; None for those of a second, at least one.
        applications: Names of the applications that it applies to, each with a separate count; empty for one count of
            all calls.
        methods: Full names of the services or methods that it applies to, with one count together; empty for all.
        per_identity: Count the calls of each identity separately. Calls without one are not limited then.
        calls_at_once: Calls that each replica takes at one moment, those that wait for a handler included.

    Example:
        >>> Limit(calls_at_once=10, per_identity=True).calls_at_once
        10
    """

    calls_per_s: float | None = None
    burst: int | None = None
    applications: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    per_identity: bool = False
    calls_at_once: int | None = None

    def __post_init__(self) -> None:
        _set_tuple(self, "applications")
        _set_tuple(self, "methods")

    def _problems(self) -> Iterator[str]:
        if self.calls_per_s is not None and not _is_number(self.calls_per_s, 1e-3, _MAX_RATE):
            yield f"calls_per_s must be a number from 0.001 to {_MAX_RATE}, not {self.calls_per_s!r}"
        for name in ("burst", "calls_at_once"):
            value = getattr(self, name)
            if value is not None and (not _is_number(value, 1, _MAX_RATE) or value != int(value)):
                yield f"{name} must be a whole number from 1 to {_MAX_RATE} or None, not {value!r}"
        if self.calls_per_s is None and self.calls_at_once is None:
            yield "it limits nothing: set calls_per_s, calls_at_once, or both"
        elif self.calls_per_s is None and self.burst is not None:
            yield "burst is that of calls_per_s, which is not set"
        if not isinstance(self.per_identity, bool):
            yield f"per_identity must be True or False, not {self.per_identity!r}"
        yield from _application_problems(self.applications)
        yield from _method_problems(self.methods)


@dataclass(frozen=True, slots=True)
class Access:
    """Rules, limits and issuers of credentials of an ingress. It holds no secret: those are in files.

    Attributes:
        issuers: Issuers of tokens.
        api_keys: Absolute path of a file on every node with a proxy, with a line ``NAME sha256:HEX`` for each API key,
            as ``sdk apikey NAME`` prints it. A client sends its key as ``x-api-key`` metadata. The file is read again
            when it changes.
        rules: What clients may call; None for everything. Tokens and keys are checked even then, if a client sends one.
        open: Built-in services for calls without credentials: ``"health"``, ``"reflection"``, ``"serve_api"``
            (``RayServeAPIService``), ``"openapi"`` (``/openapi.json``).
        limits: Limits of calls.

    Raises:
        OptionsError: A value is invalid. Lists every invalid value.

    Example:
        >>> access = Access(
        ...     issuers=(JwtIssuer("https://id.example.org", "/etc/sdk/jwks.json", audiences=("shop",)),),
        ...     rules=(Rule(Token(claims={"roles": "admin"})), Rule("authenticated", methods=("shop.Orders/List",))),
        ... )
        >>> access.open
        ('health',)
    """

    issuers: tuple[JwtIssuer, ...] = ()
    api_keys: str | None = None
    rules: tuple[Rule, ...] | None = None
    open: tuple[BuiltinService, ...] = ("health",)
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        for name in ("issuers", "open", "limits", *(("rules",) if self.rules is not None else ())):
            _set_tuple(self, name)
        problems = list(self._problems())
        if problems:
            raise OptionsError("Access: " + "; ".join(problems))

    def _problems(self) -> Iterator[str]:
        for name, kind in (("issuers", JwtIssuer), ("rules", Rule), ("limits", Limit)):
            values = getattr(self, name)
            if values is not None and not isinstance(values, tuple):
                yield f"{name} must be a tuple, not {values!r}"
                continue
            for index, value in enumerate(values or ()):
                if isinstance(value, kind):
                    yield from (f"{name}[{index}]: {what}" for what in value._problems())
                else:
                    yield f"{name}[{index}] must be a {kind.__name__}, not {value!r}"
        if not isinstance(self.open, tuple) or not all(each in _BUILTIN for each in self.open):
            yield f"open must hold {', '.join(map(repr, _BUILTIN))}, not {self.open!r}"
        if self.api_keys is not None and not (isinstance(self.api_keys, str) and os.path.isabs(self.api_keys)):
            yield f"api_keys must be an absolute path or None, not {self.api_keys!r}"
        yield from self._contradictions()

    def _contradictions(self) -> Iterator[str]:
        """Yield rules that no call can ever meet."""
        issuers = [each.issuer for each in self.issuers if isinstance(each, JwtIssuer)]
        if len(set(issuers)) != len(issuers):
            yield "two issuers have the same `issuer`"
        if self.api_keys is not None and any(
            isinstance(each, JwtIssuer) and each.jwks == self.api_keys for each in self.issuers
        ):
            yield f"api_keys and an issuer's jwks are the same file, {self.api_keys!r}"
        for index, rule in enumerate(self.rules or ()):
            for who in rule.who if isinstance(rule, Rule) and isinstance(rule.who, tuple) else ():
                if isinstance(who, Token) and not issuers:
                    yield f"rules[{index}] allows a Token, but there are no issuers"
                elif isinstance(who, Token) and who.issuer is not None and who.issuer not in issuers:
                    yield f"rules[{index}] allows tokens of {who.issuer!r}, which is not among the issuers"
                elif isinstance(who, ApiKey) and self.api_keys is None:
                    yield f"rules[{index}] allows an ApiKey, but api_keys is not set"

    @property
    def limits_per_s(self) -> tuple[Limit, ...]:
        """The limits of calls a second."""
        return tuple(limit for limit in self.limits if limit.calls_per_s is not None)

    def limits_at_once(self, application: str) -> tuple[Limit, ...]:
        """Return the limits of calls at once that apply to an application.

        Args:
            application: Its name.
        """
        return tuple(
            limit
            for limit in self.limits
            if limit.calls_at_once is not None and application in (limit.applications or (application,))
        )

    @property
    def visible_claims(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The issuers of which handlers see some claims only, with the names of those."""
        return tuple((each.issuer, each.claims) for each in self.issuers if each.claims is not None)

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain values for JSON or YAML, from which :func:`access_from` makes it again."""
        plain: dict[str, Any] = _plain(self)
        return plain


def access_from(value: Mapping[str, Any]) -> Access:
    """Return the access that plain values describe, those of a config file.

    An identity is a mapping with one key: ``token``, ``api_key`` or ``certificate``.

    Args:
        value: Fields by name.

    Raises:
        OptionsError: A field is unknown or a value is invalid.

    Example:
        >>> access_from({"api_keys": "/etc/sdk/keys", "rules": [{"who": {"api_key": "batch"}}]}).rules
        (Rule(who=(ApiKey(name='batch'),), applications=(), methods=()),)
    """
    found = dict(value)
    for name, kind in (("issuers", JwtIssuer), ("limits", Limit), ("rules", Rule)):
        entries = found.get(name)
        if isinstance(entries, list | tuple):
            found[name] = tuple(
                _make(kind, f"{name}[{index}]", _with_identities(entry) if kind is Rule else entry)
                for index, entry in enumerate(entries)
            )
    access: Access = _make(Access, "", found)
    return access


def _with_identities(rule: Any) -> Any:
    if not isinstance(rule, Mapping) or "who" not in rule:
        return rule
    who = rule["who"]
    each = who if isinstance(who, list | tuple) else [who]
    return {**rule, "who": tuple(_identity(one) for one in each)}


def _identity(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((kind, inside),) = value.items()
    if kind == "token":
        return _make(Token, "token", inside or {})
    if kind in ("api_key", "certificate"):
        return (ApiKey if kind == "api_key" else Certificate)(inside)
    return value


def _make(kind: Any, where: str, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        return value  # Access names it as invalid
    known = [each.name for each in fields(kind)]
    unknown = sorted(str(name) for name in value if name not in known)
    at = f"{where}: " if where else ""
    if unknown:
        raise OptionsError(f"Access: {at}{', '.join(unknown)} unknown; known are {', '.join(known)}")
    try:
        return kind(**value)
    except TypeError as error:  # a field without a default is missing
        missing = str(error).partition(": ")[2] or str(error)
        raise OptionsError(f"Access: {at}{missing} is missing") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Token):
        return {"token": {"issuer": value.issuer, "claims": _plain(value.claims)}}
    if isinstance(value, ApiKey):
        return {"api_key": value.name}
    if isinstance(value, Certificate):
        return {"certificate": value.name}
    if isinstance(value, Access | JwtIssuer | Rule | Limit):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def who_problems(who: Any) -> Iterator[str]:
    """Yield what is wrong with a value that should say who may call."""
    if isinstance(who, Identity):
        yield from who._problems()
    elif who not in ("anyone", "authenticated"):
        yield f"who must be 'anyone', 'authenticated', a Token, an ApiKey or a Certificate, not {who!r}"


def claim_path(name: str) -> list[str]:
    """Return the steps to a claim: the parts between dots, except those of a URL.

    Example:
        >>> claim_path("realm_access.roles"), claim_path("https://example.org/roles")
        (['realm_access', 'roles'], ['https://example.org/roles'])
    """
    return [name] if "://" in name else name.split(".")


# Members that a key needs by its type, and how the algorithms begin that it can be for. Envoy leaves out other keys.
# https://www.rfc-editor.org/rfc/rfc7518#section-6 and https://www.rfc-editor.org/rfc/rfc8037#section-2
_JWK_KINDS = {
    "RSA": (("n", "e"), ("RS2", "RS3", "RS5", "PS")),
    "EC": (("crv", "x", "y"), ("ES",)),
    "oct": (("k",), ("HS",)),
    "OKP": (("crv", "x"), ("EdDSA",)),
}
_JWK_CURVES = {"EC": ("P-256", "P-384", "P-521"), "OKP": ("Ed25519",)}


def check_jwks(text: str) -> Iterator[str]:
    """Yield what is wrong with a JSON Web Key Set, as predicates such as ``"has no keys"``."""
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        yield 'is not a JSON Web Key Set: {"keys": […]}'
        return
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) and key.get("kty") for key in keys):
        yield "has no keys" if not keys else "has an entry without `kty`"
    elif not any(map(_is_usable_key, keys)):
        yield "has no key for signatures of tokens (RSA, EC, oct, or OKP with Ed25519, each with all its members)"


def _is_usable_key(key: Mapping[str, Any]) -> bool:
    kind = key["kty"]
    members, algorithms = _JWK_KINDS.get(kind, ((), ())) if isinstance(kind, str) else ((), ())
    return (
        bool(members)
        and all(isinstance(key.get(member), str) and key[member] for member in members)
        and key.get("crv") in _JWK_CURVES.get(kind, (key.get("crv"),))
        and str(key.get("alg", algorithms[0])).startswith(algorithms)
    )


def _jwks_problems(text: str) -> Iterator[str]:
    yield from check_jwks(text)
    try:
        if any(key.get("kty") == "oct" for key in json.loads(text)["keys"]):
            yield "has a secret key (kty oct): put it into a file that only the user who runs Ray can read"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return


def _application_problems(applications: Any) -> Iterator[str]:
    if not isinstance(applications, tuple) or not all(map(_is_text, applications)):
        yield f"applications must be a tuple of texts, not {applications!r}"
    elif any("*" in each for each in applications):
        yield f"applications must hold whole names, or nothing for all applications, not {applications!r}"


def _method_problems(methods: Any) -> Iterator[str]:
    if not isinstance(methods, tuple) or not all(isinstance(each, str) and _METHOD.match(each) for each in methods):
        yield f"methods must hold names such as 'greet.Greeter' or 'greet.Greeter/SayHello', not {methods!r}"


def _pattern_problems(pattern: Any) -> Iterator[str]:
    if not _is_text(pattern):
        yield f"{pattern!r} is not a text"
    elif "*" in pattern[1:-1] or (pattern.count("*") > 1):
        yield f"{pattern!r} may have one '*', at its start or its end"


def _text_problems(value: Any, *names: str) -> Iterator[str]:
    for name in names:
        texts = getattr(value, name)
        if texts is not None and (not isinstance(texts, tuple) or not all(map(_is_text, texts))):
            yield f"{name} must be a tuple of texts, not {texts!r}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _set_tuple(owner: Any, name: str) -> None:
    object.__setattr__(owner, name, _as_tuple(getattr(owner, name)))
