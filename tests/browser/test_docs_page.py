"""The page of documentation, in Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sdk.testing
from sdk import GrpcOptions
from sdk._gen import envoy_pb2 as pb
from sdk._pages.files import Pages
from sdk._xds.routes import RouteBuilder
from sdk._xds.snapshot import Application, Deployment, JsonRoute, Snapshot
from tests.browser.conftest import API_KEY
from tests.support.browser import expect
from tests.web.http_client import ask

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_page_shows_the_methods_and_calls_one(page: Page, server: sdk.testing.Server) -> None:
    origin = f"http://{server.target}"
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{origin}/docs")
    operation = page.locator(".opblock", has=page.locator("[data-path='/sdk.web.Chat/Say']"))
    expect(operation.locator(".opblock-summary-description")).to_have_text("Say one thing.")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("textbox").fill('{"text": "hello"}')
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
    expect(operation.locator(".live-responses-table")).to_contain_text('"text": "hello"')
    assert problems == []
    assert {url.partition("/-/")[0].partition("/sdk.web")[0] for url in asked if not url.startswith("data:")} <= {
        origin,
        f"{origin}/docs",
        f"{origin}/openapi.json",
        f"{origin}/ray.serve.RayServeAPIService/ListApplications",
    }


def test_the_page_has_the_applications_to_choose_from(page: Page) -> None:
    from tests.web.chat_app import Chat

    with sdk.testing.serve(first=Chat.bind(), second=Chat.bind()) as two:
        page.goto(f"http://{two.target}/docs")
        choice = page.get_by_label("Application")
        expect(choice.locator("option")).to_have_text(["all", "first", "second"])
        choice.select_option("second")
        expect(page).to_have_title("second")
        operation = page.locator(".opblock", has=page.locator("[data-path='/sdk.web.Chat/Say']"))
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("textbox").fill("{}")
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
        expect(operation.locator(".live-responses-table")).to_contain_text("application: 'second'")


def test_the_page_asks_for_credentials(page: Page, guarded: sdk.testing.Server) -> None:
    page.goto(f"http://{guarded.target}/docs")
    expect(page.get_by_role("alert")).to_contain_text("Only clients with credentials may read it")
    page.get_by_label("or API key").fill("wrong")
    with page.expect_response("**/openapi.json") as refused:
        page.get_by_role("button", name="Show").click()
    assert refused.value.status == 401
    expect(page.get_by_role("alert")).to_contain_text("Only clients with credentials may read it")
    page.get_by_label("or API key").fill(API_KEY)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("[data-path='/sdk.web.Chat/Say']")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_other_paths_that_begin_so_are_those_of_the_application(server: sdk.testing.Server) -> None:
    assert ask(server, "/docs/", None).headers["content-type"] == "text/html; charset=utf-8"
    other = ask(server, "/docs-of-the-application", None)
    assert (other.status, other.headers["content-type"]) == (404, "application/json")


def test_the_rules_hold_for_the_document_and_not_for_the_files(guarded: sdk.testing.Server) -> None:
    assert ask(guarded, "/docs", None).status == ask(guarded, "/-/pages/docs.js", None).status == 200
    assert ask(guarded, "/openapi.json", None).status == 401
    assert ask(guarded, "/openapi.json", None, {"x-api-key": API_KEY}).status == 200


def test_an_own_route_of_an_application_wins() -> None:
    own = Deployment("D", ("a.B",), http_routes=(JsonRoute("/docs", "GET", "/docs", "/a.B/Get"),))
    routes = [
        RouteBuilder().build(Snapshot(1, (Application("a", deployments),)), pages=("/docs", "/other"))[0]
        for deployments in ((Deployment("D", ("a.B",)),), (own,))
    ]
    pages = [
        {"/docs", "/other"}
        & set(pb.RouteConfiguration.FromString(each.value).virtual_hosts[0].matcher.matcher_tree.prefix_match_map.map)
        for each in routes
    ]
    assert pages == [{"/docs", "/other"}, {"/other"}]


def test_the_page_can_be_switched_off() -> None:
    assert GrpcOptions().docs
    off = Pages()
    assert off.answer("/docs") is None
    assert off.answer("/-/pages/docs.js") is None
