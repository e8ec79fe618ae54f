"""The official clients of gRPC-Web and Connect in a page of another origin."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

import sdk.testing
from tests.browser.conftest import NODE_FOLDER, bundle
from tests.support.deadlines import wait_until
from tests.support.loops import PATIENCE_S
from tests.support.site import Site
from tests.web.node_clients import descriptors_of_chat

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.web.chat_app import Chat

CLIENTS = ["connect-web-json", "connect-web-proto", "connect-web-grpc-web", "grpc-web-binary", "grpc-web-text"]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bundle(NODE_FOLDER / "page.js", tmp_path_factory.mktemp("bundle") / "page.js")


def open_page(page: Page, server: sdk.testing.Server, script: str, origin: str) -> None:
    page.goto(f"{origin}/")
    page.add_script_tag(content=script)
    descriptors = base64.b64encode(descriptors_of_chat()).decode()
    page.evaluate("([url, descriptors]) => start(url, descriptors)", [f"http://{server.target}", descriptors])


def call(page: Page, client: str, method: str, request: Mapping[str, Any], **options: Any) -> Any:
    asked = {"client": client, "method": method, "requests": [request], "headers": {}, **options}
    return page.evaluate("asked => call(asked)", asked)


def chat(server: sdk.testing.Server) -> Chat:
    from tests.web.chat_app import Chat

    return server.instance(Chat)


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_of_a_page(page: Page, server: sdk.testing.Server, site: Site, script: str, client: str) -> None:
    open_page(page, server, script, site.origin)
    said = call(page, client, "Say", {"text": "hé"}, headers={"x-mine": "m"})
    assert (said["code"], said["messages"][0]["text"]) == (0, "hé")
    assert "x-mine: 'm'" in said["messages"][0]["metadata"]
    repeated = call(page, client, "Repeat", {"text": "a", "times": 3})
    assert [message["text"] for message in repeated["messages"]] == ["a"] * 3
    failed = call(page, client, "Repeat", {"times": 1, "code": 9, "hasDetail": True})
    assert (failed["code"], failed["message"], len(failed["messages"])) == (9, "ends with 9 — ü", 1)
    assert call(page, client, "Say", {"waits": True}, timeout_ms=50)["code"] == 4


@pytest.mark.parametrize("client", [each for each in CLIENTS if each != "grpc-web-binary"])  # all messages at the end
def test_cancellation_reaches_the_handler(
    page: Page, server: sdk.testing.Server, site: Site, script: str, client: str
) -> None:
    open_page(page, server, script, site.origin)
    cancelled = call(page, client, "Repeat", {"times": 1, "waits": True}, cancel_after=1)
    assert (cancelled["code"], len(cancelled["messages"])) == (1, 1)
    wait_until(lambda: not chat(server).waiting)


def test_a_page_that_is_left_cancels_its_calls(page: Page, server: sdk.testing.Server, site: Site, script: str) -> None:
    open_page(page, server, script, site.origin)
    page.evaluate(
        "() => { call({client: 'connect-web-json', method: 'Repeat', requests: [{waits: true}], headers: {}}); }"
    )
    until = time.monotonic() + PATIENCE_S
    while not chat(server).waiting:
        assert time.monotonic() < until, "no handler has begun"
        page.wait_for_timeout(10)
    page.goto("about:blank")
    wait_until(lambda: not chat(server).waiting)


def test_a_page_of_no_listed_origin_can_not_read(
    page: Page, server: sdk.testing.Server, site: Site, script: str
) -> None:
    open_page(page, server, script, site.other_origin)
    failed = call(page, "connect-web-json", "Say", {"text": "a"})
    assert failed["messages"] == []
    assert "Failed to fetch" in failed["message"]
