"""Requests that do not come from the console's own page."""

from __future__ import annotations

import pytest

from sdk.cli.console.guard import TOKEN_HEADER, Guard

GUARD = Guard(8270, "secret")
HOST = {"host": "127.0.0.1:8270"}


@pytest.mark.parametrize("host", ["127.0.0.1:8270", "localhost:8270", "[::1]:8270"])
def test_the_page_itself(host: str) -> None:
    assert GUARD.problem({"host": host}, is_api=False) == ""
    own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin", TOKEN_HEADER: "secret"}
    assert GUARD.problem(own, is_api=True) == ""


@pytest.mark.parametrize("host", ["evil.example:8270", "127.0.0.1", "127.0.0.1:80", "", "127.0.0.1:8270.evil.example"])
def test_another_host_is_refused_for_files_too(host: str) -> None:
    assert "open the console at http://127.0.0.1:8270" in GUARD.problem({"host": host}, is_api=False)


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1:8270", "http://127.0.0.1:9000", "null"])
def test_another_origin_is_refused(origin: str) -> None:
    headers = {**HOST, "origin": origin, TOKEN_HEADER: "secret"}
    assert f"pages of {origin} may not" in GUARD.problem(headers, is_api=True)


def test_another_site_is_refused_without_an_origin() -> None:
    headers = {**HOST, "sec-fetch-site": "cross-site", TOKEN_HEADER: "secret"}
    assert "another site" in GUARD.problem(headers, is_api=True)


@pytest.mark.parametrize("token", ["", "wrong", "secret ", "sécret"])
def test_without_the_token_there_is_no_answer(token: str) -> None:
    assert "open the link that `sdk console` has printed" in GUARD.problem({**HOST, TOKEN_HEADER: token}, is_api=True)
    assert GUARD.problem(HOST, is_api=False) == ""


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(GUARD)
