"""Any request to routes of ``google.api.http`` and any JSON: a message, or an error of the client; ``make fuzz``."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._web.http_rules import HttpRules
from sdk._web.json_codec import parse_message
from sdk._wire.frames import FrameError
from sdk._wire.metadata import INVALID_ARGUMENT
from tests.web.conftest import HERE  # it makes chat_pb2 importable

pytestmark = pytest.mark.hypothesis
assert HERE

FIELDS = ("text", "times", "author", "author.name", "tags", "isLoud", "mood", "at", "counts", "counts.a", "any", "file")
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["1", "-1", "1e400", "NaN", "true", "null", "MOOD_GLAD", "", "%2F", "a/b"]
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS) | TEXTS, inner, max_size=3),
    max_leaves=5,
)
SEGMENTS = st.sampled_from(["v1", "say", "authors", "heard", "rooms", "notes", "repeat", "files", "uploads", "echo"])
PATHS = st.lists(SEGMENTS | TEXTS.map(quote) | TEXTS, max_size=7).map(lambda parts: "/" + "/".join(parts))
KNOWN = st.sampled_from(
    ["/v1/say", "/v1/authors/a/say/b", "/v1/repeat/a", "/v1/files/a", "/v1/echo", "/v1/heard/rooms/1/notes/2"]
)
QUERIES = st.dictionaries(st.sampled_from(FIELDS) | TEXTS, TEXTS, max_size=3).map(
    lambda pairs: "&".join(f"{quote(key)}={quote(value)}" for key, value in pairs.items())
)
BODIES = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40) | TEXTS.map(str.encode)


def rules() -> HttpRules:
    from chat_sdk import CHAT

    return HttpRules(CHAT.methods)


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH"]), PATHS | KNOWN, QUERIES | TEXTS, BODIES, st.booleans()
)
def test_a_request_is_a_message_of_its_method_or_an_error_of_the_client(
    verb: str, path: str, query: str, body: bytes, has_body: bool
) -> None:
    match, verbs = rules().match(verb, f"{path}?{query}" if query else path)
    if match is None:
        assert verb not in verbs
        return
    try:
        data = match.request(body if has_body else b"", b"text/plain")
    except FrameError as error:
        assert (error.code, bool(str(error))) == (INVALID_ARGUMENT, True)  # noqa: PT017  # either is right
    else:
        match.rule.method.request.FromString(data)


@given(BODIES)
def test_json_is_a_message_or_an_error_of_the_client(body: bytes) -> None:
    from chat_pb2 import Said

    try:
        data = parse_message(body, Said)
    except FrameError as error:
        assert (error.code, bool(str(error))) == (INVALID_ARGUMENT, True)  # noqa: PT017  # either is right
    else:
        Said.FromString(data)
