"""Any input to the parsers of the option ``access`` and its files; ``make fuzz`` searches at random."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._ingress.credentials import parse_api_keys
from sdk._wire.call_rules import is_one_of
from sdk._wire.peer import auth_context_of
from sdk._xds.access_filters import KeyMaterial, filter_configs
from sdk.access import Access, ApiKey, Certificate, JwtIssuer, Limit, Rule, Token, access_from, check_jwks
from sdk.errors import OptionsError
from sdk.options import GrpcOptions
from tests.support.tokens import encode

pytestmark = pytest.mark.hypothesis

TEXTS = st.text(max_size=12) | st.sampled_from(["*", "a*", "*b", "roles", "scope", "shop", "t.T", "t.T/M", "/etc/x"])
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
PATTERNS = st.sampled_from(["*", "a*", "*b", "ab", "a", "b"])
NAMES = st.sampled_from(["roles", "scope", "realm.roles", "sub"])
CLAIMS = st.dictionaries(NAMES, st.lists(PATTERNS, min_size=1, max_size=2), max_size=2)
TOKENS = st.builds(Token, st.none() | st.sampled_from(["i", "j"]), CLAIMS)
IDENTITIES = TOKENS | st.builds(ApiKey, st.sampled_from(["*", "batch", "other"])) | st.just(Certificate("*"))
WHO = st.sampled_from(["anyone", "authenticated"]) | IDENTITIES
METHODS = st.lists(st.sampled_from(["t.T", "t.T/M", "u.U/N"]), max_size=2, unique=True)
RULES = st.builds(Rule, WHO | st.lists(WHO, min_size=1, max_size=3), methods=METHODS)
LIMITS = st.builds(
    Limit,
    calls_per_s=st.floats(1e-3, 1e6),
    burst=st.none() | st.integers(1, 10**6),
    applications=st.lists(st.sampled_from(["shop", "Ünï"]), max_size=2, unique=True),
    methods=METHODS,
    per_identity=st.booleans(),
    calls_at_once=st.none() | st.integers(1, 10**6),
)
ACCESSES = st.builds(
    Access,
    issuers=st.just((JwtIssuer("i", "/i"), JwtIssuer("j", "/j", claims=("sub",)))),
    api_keys=st.just("/keys"),
    rules=st.none() | st.lists(RULES, max_size=3),
    limits=st.lists(LIMITS, max_size=3),
    open=st.lists(st.sampled_from(["health", "reflection", "serve_api", "openapi"]), max_size=3),
)


def fields(*names: str) -> Any:
    return st.dictionaries(st.sampled_from([*names, "other"]), JSON, max_size=4)


ISSUER = fields("issuer", "jwks", "audiences", "claims", "clock_skew_s", "refresh_s")
RULE = fields("who", "applications", "methods")
LIMIT = fields("calls_per_s", "burst", "calls_at_once", "per_identity", "methods")
MAPPINGS = st.fixed_dictionaries(
    {},
    optional={
        "issuers": st.lists(ISSUER, max_size=2) | JSON,
        "rules": st.lists(RULE, max_size=2) | JSON,
        "limits": st.lists(LIMIT, max_size=2) | JSON,
        "open": JSON,
        "api_keys": JSON,
        "more": JSON,
    },
)


@given(MAPPINGS)
def test_a_section_of_a_config_file_is_access_or_its_error_names_what_is_wrong(section: dict[str, Any]) -> None:
    try:
        access = access_from(section)
    except OptionsError:
        with pytest.raises(OptionsError, match=r"GrpcOptions: access: "):
            GrpcOptions(access=section)  # type: ignore[arg-type]  # as config files have it
    else:
        assert access_from(access.to_mapping()) == access
        hash(access)


@given(ACCESSES)
def test_access_survives_json_and_can_be_sent_to_envoy(access: Access) -> None:
    assert access_from(json.loads(json.dumps(access.to_mapping()))) == access
    filter_configs(access, KeyMaterial({"i": '{"keys": []}'}, {"0" * 64: "batch"}))
    for application in ("shop", "other"):
        assert set(access.limits_at_once(application)) <= set(access.limits)


@given(st.text() | st.lists(st.sampled_from(["batch", "sha256:", "0" * 64, " ", "\n", "#", "secret"])).map("".join))
def test_a_file_of_api_keys_is_read_or_its_error_shows_nothing_of_it(text: str) -> None:
    names, wrong = parse_api_keys(text)
    assert not names or not wrong
    assert all(problem.startswith("line ") for problem in wrong)
    assert "secret" not in "".join(wrong)


@given(st.text() | JSON.map(json.dumps) | fields("keys").map(json.dumps))
def test_a_key_set_is_read_or_its_error_is_a_predicate(text: str) -> None:
    assert all(problem.startswith(("is ", "has ")) for problem in check_jwks(text))


@given(st.lists(IDENTITIES, max_size=3), JSON | fields("iss", "sub", "roles", "scope", "realm"), st.booleans())
def test_any_claims_of_a_token_are_matched(who: list[Any], claims: Any, has_key: bool) -> None:
    """A token is verified, but its issuer puts into it what it likes: it must be an object."""
    claims = claims if isinstance(claims, dict) else {"sub": claims}
    known = auth_context_of(None, None, encode(json.dumps(claims).encode()).encode(), b"batch" if has_key else None)
    allowed = is_one_of(who, known)
    assert allowed == any(is_one_of([each], known) for each in who)
    assert is_one_of(["authenticated"], known)
    if allowed and not has_key:
        assert any(isinstance(each, Token) for each in who)
