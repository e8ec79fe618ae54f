"""The console, in Chromium: served by `sdk console`, and by the ingress."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import sdk.testing
from sdk.cli.console.server import ConsoleServer, listen
from sdk.cli.console.services import Services
from sdk.cli.rpc.connection import connect
from sdk.cli.rpc.schemas import FileSchema
from tests.browser.conftest import API_KEY
from tests.support import desk_server
from tests.support.browser import expect
from tests.support.desk_server import PROTOS, Clerk, Porter
from tests.support.loops import PATIENCE_S
from tests.web.http_client import ask

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

STATUS: dict[str, Any] = {
    "healthy": True,
    "version": 12,
    "problem": "",
    "applications": [
        {
            "name": "desk",
            "state": "RUNNING",
            "message": "",
            "deployments": [
                {
                    "name": "Clerk",
                    "state": "HEALTHY",
                    "services": ["desk.v1.Desk"],
                    "replicas": 2,
                    "endpoints": ["127.0.0.1:1", "127.0.0.1:2"],
                    "message": "",
                    "scaled_to_zero": False,
                }
            ],
        }
    ],
    "proxies": [
        {
            "node_id": "abcdef012345",
            "address": "127.0.0.1:9000",
            "up_to_date": True,
            "envoy_pid": 42,
            "problem": "",
            "version": 12,
        }
    ],
}
FIGURES: dict[str, Any] = {
    "seconds": 20.0,
    "methods": [
        {
            "application": "desk",
            "method": "/desk.v1.Desk/Echo",
            "calls_per_s": 1234.0,
            "p50_ms": 1.5,
            "p99_ms": 12.0,
            "errors_per_s": {"NOT_FOUND": 0.5},
            "ongoing": 3,
            "queued": 0,
        }
    ],
    "replicas": [],
    "rejected": [],
    "unreachable": {"10.0.0.2:8080": "timed out"},
}


class Cluster:
    def read(self) -> dict[str, Any]:
        return {"cluster": "Ray at here", "status": STATUS, "calls": FIGURES, "problems": []}


@pytest.fixture(scope="module")
def desk() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(desk=Clerk.bind(), annex=Porter.bind()) as server:
        yield server


@pytest.fixture(scope="module")
def link(desk: sdk.testing.Server) -> Iterator[str]:
    """Serve the console of a server, with the comments of its protos."""
    options: dict[str, Any] = dict.fromkeys(("application", "tls_ca", "tls_certificate", "tls_private_key"))
    options |= {"tls_server_name": None, "max_message_length": None, "metadata": (), "connect_timeout": PATIENCE_S}
    connection = connect(desk.target, options)
    services = Services(connection, FileSchema([PROTOS], [], "--protos"))
    links: list[str] = []
    is_served, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with listen(0, lambda guard: ConsoleServer(connection, services, Cluster(), guard)) as (link, _):
            links.append(link)
            is_served.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="console")
    thread.start()
    assert is_served.wait(PATIENCE_S)
    yield links[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    connection.client.close()


def open_method(page: Page, link: str, name: str, service: str = "desk/desk.v1.Desk") -> None:
    page.goto(link)
    page.locator(f"#tree a[href='#/method/{service}/{name}']").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def call(page: Page) -> None:
    page.get_by_role("button", name="Call", exact=True).click()


def response(page: Page) -> Locator:
    return page.get_by_role("region", name="Response")


def request_json(page: Page) -> Any:
    page.get_by_role("tab", name="JSON").click()
    return json.loads(page.get_by_label("Request as JSON").input_value())


def test_services_are_listed_with_comments_and_found(page: Page, link: str) -> None:
    problems: list[str] = []
    origins: set[str] = set()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: origins.add("/".join(asked.url.split("/")[:3])))
    page.goto(link)
    assert "token" not in page.url
    expect(page.get_by_role("main")).to_contain_text("Takes tickets: one RPC of each cardinality")
    tree = page.get_by_role("navigation", name="Methods", exact=True)
    expect(tree.get_by_role("link")).to_have_count(9)
    page.keyboard.press("/")
    page.keyboard.type("counts down")  # the comment of Count
    expect(tree.get_by_role("link")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Count")
    expect(page.get_by_role("main")).to_contain_text("Counts down from the number.")
    page.get_by_label("Search methods").fill("no such method")
    expect(tree).to_contain_text("No method matches.")
    assert problems == []
    assert origins == {"/".join(link.split("/")[:3])}


def test_a_form_has_every_kind_of_field_and_the_json_is_in_step(page: Page, link: str) -> None:
    open_method(page, link, "Echo")
    form = page.get_by_role("form", name="Request")
    form.get_by_label("title", exact=True).fill("a door")
    form.get_by_label("number", exact=True).fill("9007199254740993")
    form.get_by_role("button", name="Add to seats").click()
    form.get_by_label("seats 1", exact=True).fill("7")
    form.get_by_label("urgency", exact=True).select_option("HIGH")
    form.get_by_role("button", name="Set owner").click()
    form.get_by_label("first_name").fill("Ada")
    form.get_by_role("button", name="Add to labels").click()
    form.get_by_label("Key 1 of labels").fill("5")
    form.get_by_label("Key 1 of labels").press("Tab")
    form.get_by_label("Value 1 of labels").fill("five")
    form.get_by_label("place", exact=True).select_option("is_remote")
    form.get_by_role("switch", name="is_remote").check()
    form.get_by_role("button", name="Set due").click()
    form.get_by_label("due", exact=True).fill("2026-01-31T12:00:00Z")
    form.get_by_role("button", name="Set note").click()
    form.get_by_label("note", exact=True).fill("n")
    form.get_by_role("button", name="Set form").click()
    form.get_by_label("form", exact=True).fill('{"a": [1]}')
    form.get_by_label("stamp", exact=True).fill("AQI=")
    form.get_by_label("price", exact=True).fill("1.5")
    form.get_by_role("button", name="Set vip").click()
    form.get_by_role("button", name="Set parent").click()
    form.get_by_label("title", exact=True).nth(1).fill("outer")
    wanted = {
        "title": "a door",
        "number": "9007199254740993",
        "seats": [7],
        "urgency": "HIGH",
        "owner": {"firstName": "Ada"},
        "labels": {"5": "five"},
        "isRemote": True,
        "due": "2026-01-31T12:00:00Z",
        "note": "n",
        "form": {"a": [1]},
        "stamp": "AQI=",
        "price": 1.5,
        "vip": False,
        "parent": {"title": "outer"},
    }
    assert request_json(page) == wanted
    call(page)
    expect(response(page)).to_contain_text("OK")
    shown = json.loads(response(page).get_by_label("Message 1", exact=True).inner_text())
    assert shown == {**wanted, "form": {"a": [1.0]}}
    page.get_by_label("Request as JSON").fill('{"title": "typed", "place": 1')
    call(page)
    expect(form.get_by_role("alert")).to_contain_text("The request is not JSON")
    page.get_by_label("Request as JSON").fill('{"title": "typed", "seats": [1, 2]}')
    page.get_by_role("tab", name="Form").click()
    expect(form.get_by_label("title", exact=True)).to_have_value("typed")
    expect(form.get_by_label("seats 2", exact=True)).to_have_value("2")
    form.get_by_label("number", exact=True).fill("1.5")
    call(page)
    expect(form.get_by_role("alert")).to_contain_text("A whole number")


FIELDS: dict[str, Any] = {
    "a_double": ("NaN", "NaN"),
    "a_float": ("-Infinity", "-Infinity"),
    "an_int64": ("-9223372036854775808", "-9223372036854775808"),
    "a_uint64": ("18446744073709551615", "18446744073709551615"),
    "a_sint32": ("-1", -1),
    "a_string": ("two\nlines", "two\nlines"),
    "some_bytes": ("+/8=", "+/8="),
}
OPTIONAL_FIELDS: dict[str, Any] = {
    "maybe_double": ("0", 0),
    "maybe_string": ("", ""),
    "at": ("2026-01-31T12:00:00.500Z", "2026-01-31T12:00:00.500Z"),
    "takes": ("-1.500s", "-1.500s"),
    "mask": ("aString,inner.aBool", "aString,inner.aBool"),
    "struct": ('{"a": [1.5, null]}', {"a": [1.5, None]}),
    "value": ('["text"]', ["text"]),
    "list": ("[true]", [True]),
    "any": ('{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "2s"}', None),
    "double_value": ("Infinity", "Infinity"),
    "int64_value": ("9007199254740993", "9007199254740993"),
    "string_value": ("", ""),
    "bytes_value": ("AQI=", "AQI="),
    "uint32_value": ("0", 0),
}


def test_a_form_takes_every_kind_of_field(page: Page, server: sdk.testing.Server) -> None:
    open_method(page, f"http://{server.target}/console", "Fields", "default/sdk.web.Chat")
    form = page.get_by_role("form", name="Request")
    for name, (text, _) in FIELDS.items():
        form.get_by_label(name, exact=True).fill(text)
    for name, (text, _) in OPTIONAL_FIELDS.items():
        form.get_by_role("button", name=f"Set {name}", exact=True).click()
        form.get_by_label(name, exact=True).fill(text)
    form.get_by_role("button", name="Set bool_value").click()
    form.get_by_label("color", exact=True).select_option("COLOR_DARK")
    for name, text in {"longs": "9007199254740993", "pieces": "AQI=", "values": "null"}.items():
        form.get_by_role("button", name=f"Add to {name}", exact=True).click()
        form.get_by_label(f"{name} 1", exact=True).fill(text)
    for name, key in {"colors_by_number": "-7", "doubles_by_bool": "false", "inners_by_number": "8"}.items():
        form.get_by_role("button", name=f"Add to {name}", exact=True).click()
        form.get_by_label(f"Key 1 of {name}").fill(key)
        form.get_by_label(f"Key 1 of {name}").press("Tab")
    form.get_by_label("Value 1 of doubles_by_bool").fill("2.5")
    form.get_by_label("choice", exact=True).last.select_option("chosen_inner")
    form.get_by_role("button", name="Set inner", exact=True).last.click()  # that of the chosen one
    form.get_by_label("a_string", exact=True).last.fill("deep")
    wanted = {_json_name(name): value for name, (_, value) in {**FIELDS, **OPTIONAL_FIELDS}.items()}
    wanted |= {
        "any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "2s"},
        "boolValue": False,
        "color": "COLOR_DARK",
        "longs": ["9007199254740993"],
        "pieces": ["AQI="],
        "values": [None],
        "colorsByNumber": {"-7": "COLOR_UNKNOWN"},
        "doublesByBool": {"false": 2.5},
        "innersByNumber": {"8": {}},
        "chosenInner": {"inner": {"aString": "deep"}},
    }
    assert request_json(page) == wanted
    call(page)
    expect(response(page)).to_contain_text("OK")
    shown = json.loads(response(page).get_by_label("Message 1", exact=True).inner_text())
    assert shown == wanted


def test_long_numbers_that_were_typed_as_json_keep_their_digits_in_the_form(
    page: Page, server: sdk.testing.Server
) -> None:
    open_method(page, f"http://{server.target}/console", "Fields", "default/sdk.web.Chat")
    request_json(page)
    page.get_by_label("Request as JSON").fill('{"anInt64": 9007199254740993, "longs": [-9223372036854775807]}')
    page.get_by_role("tab", name="Form").click()
    form = page.get_by_role("form", name="Request")
    expect(form.get_by_label("an_int64", exact=True)).to_have_value("9007199254740993")
    form.get_by_label("a_string", exact=True).fill("changed")
    assert request_json(page) == {
        "anInt64": 9007199254740993,
        "longs": [-9223372036854775807],
        "aString": "changed",
    }
    call(page)
    expect(response(page)).to_contain_text('"anInt64": "9007199254740993"')


def _json_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def test_a_stream_is_shown_as_it_comes_and_cancelled(page: Page, link: str) -> None:
    desk_server.cancelled.clear()
    open_method(page, link, "Wait")
    page.keyboard.press("Control+Enter")
    expect(response(page)).to_contain_text('{"title":"waiting"}')
    expect(response(page)).to_contain_text("Running")
    page.keyboard.press("Escape")
    expect(response(page)).to_contain_text("CANCELLED")
    assert desk_server.cancelled.wait(PATIENCE_S)
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()


def test_an_error_has_its_details_headers_and_trailers(page: Page, link: str) -> None:
    open_method(page, link, "Refuse")
    call(page)
    expect(response(page)).to_contain_text("FAILED_PRECONDITION")
    expect(response(page)).to_contain_text("come back")
    expect(response(page).get_by_role("heading", name="google.rpc.BadRequest")).to_be_visible()
    response(page).get_by_text("Trailers").click()
    expect(response(page).get_by_role("row", name="desk-open no")).to_be_visible()
    page.get_by_role("tab", name="JSON").click()
    page.get_by_label("Request as JSON").fill('{"titel": "a"}')
    call(page)
    expect(response(page)).to_contain_text("Not called")
    expect(response(page)).to_contain_text("desk.v1.Ticket has no field `titel`; did you mean `title`?")


def test_a_stream_of_requests_stays_open(page: Page, link: str) -> None:
    open_method(page, link, "Talk")
    page.get_by_label("title", exact=True).fill("one")
    page.get_by_label("Keep the stream open").check()
    call(page)
    expect(response(page)).to_contain_text('{"title":"ONE"}')
    page.get_by_role("button", name="Add a message").click()
    page.get_by_label("title", exact=True).fill("two")
    page.get_by_role("button", name="Send").click()
    expect(response(page)).to_contain_text('{"title":"TWO"}')
    page.get_by_role("button", name="End the stream").click()
    expect(response(page)).to_contain_text("OK")


def test_metadata_deadline_credentials_and_the_same_call_as_text(page: Page, link: str) -> None:
    open_method(page, link, "Tell")
    page.get_by_role("button", name="Credentials").click()
    page.get_by_label("Token", exact=True).fill("hidden")
    page.get_by_role("button", name="Use").click()
    page.get_by_role("form", name="Request").get_by_text("Metadata").click()
    page.get_by_role("form", name="Request").get_by_role("button", name="Add", exact=True).last.click()
    page.get_by_label("Key 1", exact=True).fill("desk-key")
    page.get_by_label("Value 1", exact=True).fill("it's")
    page.get_by_label("Deadline in seconds").fill("90")
    call(page)
    expect(response(page)).to_contain_text("authorization='Bearer hidden'")
    expect(response(page)).to_contain_text('desk-key=\\"it\'s\\"')
    expect(response(page)).to_contain_text(re.compile("within (89|90) s"))
    code = page.get_by_label("The same call", exact=True)
    for name, parts in {
        "sdk call": ["sdk call 127.0.0.1:", " desk.v1.Desk/Tell", "--application desk", r"-H 'desk-key: it'\''s'"],
        "grpcurl": ["grpcurl", "-plaintext", '-H "authorization: Bearer $TOKEN"', "-max-time 90", "-d '{}'"],
        "curl": ["curl http://127.0.0.1:", "-H 'connect-timeout-ms: 90000'"],
        "Python": ["from desk_sdk import DeskSyncClient", "client.Tell(request", 'os.environ["TOKEN"]', "timeout=90"],
    }.items():
        page.get_by_role("tab", name=name, exact=True).click()
        for part in parts:
            expect(code).to_contain_text(part)
        assert "hidden" not in code.inner_text()
    assert "hidden" not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")


def test_the_history_restores_a_call(page: Page, link: str) -> None:
    open_method(page, link, "Echo")
    page.get_by_label("title", exact=True).fill("remembered")
    call(page)
    expect(response(page)).to_contain_text("OK")
    page.reload()
    page.get_by_role("link", name="History").click()
    page.get_by_role("button", name=re.compile("Echo")).click()
    expect(page.get_by_label("title", exact=True)).to_have_value("remembered")
    page.get_by_role("link", name="History").click()
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("main")).to_contain_text("No calls yet.")


def test_live_figures(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_role("link", name="Live").click()
    main = page.get_by_role("main")
    for text in (
        "Ray at here",
        "Healthy",
        "Routing table12",
        "1,234",
        "desk.v1.Desk/Echo",
        "1.5 ms",
        "NOT_FOUND 0.5",
        "of the last 20 s on all nodes",
        "No metrics of 10.0.0.2:8080: timed out",
        "127.0.0.1:9000",
    ):
        expect(main).to_contain_text(text)


def test_narrow_and_dark(page: Page, link: str) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.goto(link)
    tree = page.get_by_role("navigation", name="Methods", exact=True)
    expect(tree).to_be_hidden()
    page.get_by_role("button", name="Show the methods").click()
    tree.get_by_role("link", name="Refuse", exact=True).click()
    expect(tree).to_be_hidden()
    call(page)
    expect(response(page)).to_contain_text("FAILED_PRECONDITION")
    assert page.evaluate("document.documentElement.scrollWidth") == 380
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Colours of the system").click()
    expect(page.get_by_role("button", name="Light colours")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_the_list_by_keyboard(page: Page, link: str) -> None:
    page.goto(link)
    expect(page.get_by_role("navigation", name="Methods", exact=True).get_by_role("link")).to_have_count(9)
    page.keyboard.press("/")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Echo")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()


def test_without_the_token_of_the_link_there_is_a_remedy(page: Page, link: str) -> None:
    page.goto(link.partition("#")[0])
    expect(page.get_by_role("alert")).to_contain_text("open the link that `sdk console` has printed")


def test_the_ingress_serves_the_console(page: Page, desk: sdk.testing.Server) -> None:
    open_method(page, f"http://{desk.target}/console", "Count")
    expect(page.get_by_role("main")).to_contain_text("Counts down from the number.")
    page.get_by_label("number", exact=True).fill("2")
    call(page)
    expect(response(page)).to_contain_text('{"number":"1"}')
    expect(response(page)).to_contain_text("OK")
    open_method(page, f"http://{desk.target}/console", "Refuse")
    call(page)
    expect(response(page)).to_contain_text("FAILED_PRECONDITION")
    expect(response(page).get_by_role("heading", name="google.rpc.BadRequest")).to_be_visible()
    open_method(page, f"http://{desk.target}/console", "Echo")
    page.get_by_label("title", exact=True).fill("through Envoy")
    call(page)
    expect(response(page)).to_contain_text('"title": "through Envoy"')
    desk_server.cancelled.clear()
    open_method(page, f"http://{desk.target}/console", "Wait")
    call(page)
    expect(response(page)).to_contain_text("waiting")
    page.get_by_role("button", name="Cancel").click()
    expect(response(page)).to_contain_text("CANCELLED")
    assert desk_server.cancelled.wait(PATIENCE_S)
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_role("main")).to_contain_text("Clerk")
    expect(page.get_by_role("main")).to_contain_text("Calls are counted on a Ray cluster only.")


def test_the_ingress_asks_for_credentials(page: Page, guarded: sdk.testing.Server) -> None:
    page.goto(f"http://{guarded.target}/console")
    page.get_by_label("API key").fill(API_KEY)
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_role("main")).to_contain_text("Chat")
    assert ask(guarded, "/-/console/services", None).status == 401
