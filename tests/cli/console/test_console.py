"""`sdk console`: its services, its calls and its server, in front of a test server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import pytest
from click.testing import CliRunner

import sdk.testing
from sdk.cli.console.calls import CallRequest, ConsoleCall
from sdk.cli.console.guard import TOKEN_HEADER
from sdk.cli.console.server import ConsoleServer, listen
from sdk.cli.console.services import Services
from sdk.cli.main import main
from sdk.cli.rpc.connection import ServerConnection, connect
from sdk.cli.rpc.schemas import FileSchema
from sdk.errors import OptionsError, ServerError
from tests.support import desk_server
from tests.support.desk_server import PROTOS, Clerk, Porter
from tests.support.loops import PATIENCE_S
from tests.support.ports import free_port

OPTIONS: dict[str, Any] = dict.fromkeys(
    ("application", "tls_ca", "tls_certificate", "tls_private_key", "tls_server_name", "max_message_length")
)


class FakeCluster:
    def read(self) -> dict[str, Any]:
        return {"cluster": "here", "status": None, "calls": None, "problems": []}


def connected(target: str, **options: Any) -> ServerConnection:
    return connect(target, {**OPTIONS, "metadata": (), "connect_timeout": PATIENCE_S, **options})


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(desk=Clerk.bind(), annex=Porter.bind(), other=Porter.bind()) as server:
        yield server


@pytest.fixture(scope="module")
def connection(server: sdk.testing.Server) -> Iterator[ServerConnection]:
    found = connected(server.target)
    with found.client:
        yield found


@pytest.fixture(scope="module")
def services(connection: ServerConnection) -> Services:
    found = Services(connection, None)
    found.catalog()
    return found


def events(connection: ServerConnection, services: Services, **asked: Any) -> list[dict[str, Any]]:
    request = CallRequest.from_json({"application": "desk", "metadata": [], "timeout": None, **asked})
    return list(ConsoleCall.open(connection.client, services, request).events())


# -- services -------------------------------------------------------------------------------------


def test_the_catalog_has_each_application(connection: ServerConnection) -> None:
    found = {each["name"]: each for each in Services(connection, None).catalog()}
    assert list(found) == ["annex", "desk", "other"]
    assert [each["name"] for each in found["desk"]["services"]] == ["desk.v1.Desk"]
    assert [each["name"] for each in found["other"]["services"]] == ["desk.v1.Annex"]
    assert {each["name"] for each in found["other"]["types"]} == {"desk.v1.Call", "google.protobuf.StringValue"}
    assert not any(each["problems"] for each in found.values())


def test_files_bring_comments(connection: ServerConnection) -> None:
    found = Services(connection, FileSchema([PROTOS], [], "--protos")).catalog()
    (desk,) = (each for each in found if each["name"] == "desk")
    (service,) = desk["services"]
    assert service["comment"].startswith("Takes tickets")


def test_one_application_can_be_chosen(server: sdk.testing.Server) -> None:
    chosen = connected(server.target, application="annex")
    with chosen.client:
        assert [each["name"] for each in Services(chosen, None).catalog()] == ["annex"]


def test_a_method_that_is_gone_is_an_error(services: Services) -> None:
    for application, path in (("desk", "desk.v1.Desk/Gone"), ("gone", "desk.v1.Desk/Echo"), ("desk", "no.Such/Echo")):
        with pytest.raises(OptionsError, match=r"is not known any more: reload the page"):
            services.method(application, path)


def test_a_server_without_reflection(connection: ServerConnection) -> None:
    plain = grpc.server(ThreadPoolExecutor(1))
    port = plain.add_insecure_port("127.0.0.1:0")
    plain.start()
    other = connected(f"127.0.0.1:{port}")
    with other.client:
        with pytest.raises(ServerError, match=r"has no server reflection. Start the console with --protos PATH"):
            Services(other, None).catalog()
        (found,) = Services(other, FileSchema([PROTOS], [], "--protos")).catalog()
        assert (found["name"], len(found["services"])) == ("", 2)
    plain.stop(None).wait()


# -- calls ----------------------------------------------------------------------------------------


def test_the_events_of_a_call(connection: ServerConnection, services: Services) -> None:
    asked = {"metadata": [["desk-key", "k"], ["desk-bin", "AQI="]], "timeout": 90}
    headers, message, end = events(connection, services, path="desk.v1.Desk/Tell", messages=["{}"], **asked)
    assert headers["event"] == "headers"
    assert ["desk-floor", "2"] in headers["metadata"]
    assert message["event"] == "message"
    assert "desk-bin=b'\\x01\\x02' desk-key='k'" in message["message"]["text"]
    assert message["message"]["text"].endswith(("within 90 s", "within 89 s"))
    assert (end["event"], end["status"]["code"]) == ("end", "OK")
    assert "request_id" in dict(end["trailing_metadata"])


def test_each_cardinality(connection: ServerConnection, services: Services) -> None:
    def shown(method: str, *messages: str) -> list[Any]:
        found = events(connection, services, path=f"desk.v1.Desk/{method}", messages=list(messages))
        assert found[-1]["status"]["code"] == "OK"
        return [each["message"] for each in found if each["event"] == "message"]

    assert shown("Echo", '{"title": "a", "isRemote": true}') == [{"title": "a", "isRemote": True}]
    assert shown("Count", '{"number": "3"}') == [{"number": "3"}, {"number": "2"}, {"number": "1"}]
    assert shown("Add", '{"number": 9007199254740993}', '{"number": 1}') == [{"number": "9007199254740994"}]
    assert shown("Talk", '{"title": "a"}', '{"title": "b"}') == [{"title": "A"}, {"title": "B"}]
    assert shown("Talk") == []


def test_a_status_has_its_details(connection: ServerConnection, services: Services) -> None:
    (*_, end) = events(connection, services, path="desk.v1.Desk/Refuse", messages=["{}"])
    assert (end["status"]["code"], end["status"]["message"]) == ("FAILED_PRECONDITION", "come back")
    assert [each["@type"].rpartition("/")[2] for each in end["status"]["details"]] == [
        "google.rpc.BadRequest",
        "google.rpc.RetryInfo",
        "desk.v1.Call",
    ]


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"messages": ['{"titel": "a"}']}, r"message 1, line 1, column 2: desk.v1.Ticket has no field `titel`"),
        ({"messages": ['{"title": ']}, r"message 1"),
        ({"messages": ["{} {}"]}, r"message 1: this is 2 JSON values: give one"),
        ({"messages": []}, r"takes one message, not 0"),
        ({"messages": ["{}"], "metadata": [["Bad Key", "v"]]}, r"metadata 'Bad Key': a key has letters"),
        ({"messages": ["{}"], "metadata": [["key-bin", "?"]]}, r"must be base64"),
        ({"messages": ["{}"], "timeout": 0}, r"the deadline must be a positive number of seconds, not 0"),
        ({"messages": ["{}"], "timeout": "1"}, r"reload the page"),
        ({"messages": [{}]}, r"reload the page"),
        ({"messages": ["{}"], "metadata": [["key"]]}, r"reload the page"),
        ({"messages": ["{}"], "path": None}, r"reload the page"),
    ],
)
def test_a_wrong_request_makes_no_call(
    connection: ServerConnection, services: Services, asked: dict[str, Any], problem: str
) -> None:
    with pytest.raises(OptionsError, match=problem):
        events(connection, services, **{"path": "desk.v1.Desk/Echo", **asked})


def test_a_second_catalog_has_its_own_types(connection: ServerConnection) -> None:
    services = Services(connection, None)
    for _ in range(2):
        services.catalog()
        assert events(connection, services, path="desk.v1.Desk/Echo", messages=["{}"])[-1]["status"]["code"] == "OK"


# -- the HTTP server ------------------------------------------------------------------------------


@asynccontextmanager
async def opened(connection: ServerConnection, services: Services) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve the console, and return a client with its token, and its origin."""
    make = lambda guard: ConsoleServer(connection, services, FakeCluster(), guard)  # noqa: E731  # it is short
    async with listen(0, make) as (link, _):
        page, _, token = link.partition("#token=")
        async with aiohttp.ClientSession(headers={TOKEN_HEADER: token}) as client:
            yield client, page.removesuffix("/console")


def asked_of(method: str, *messages: str, **more: Any) -> dict[str, Any]:
    return {"application": "desk", "path": f"desk.v1.Desk/{method}", "messages": list(messages), **more}


async def test_the_page_and_what_it_asks(connection: ServerConnection, services: Services) -> None:
    async with opened(connection, services) as (client, origin):
        async with client.get(f"{origin}/") as page:
            assert page.status == 200
            assert page.url.path == "/console"
            assert "default-src 'none'" in page.headers["content-security-policy"]
        async with client.get(f"{origin}/-/pages/console/editor.js") as script:
            assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        async with client.get(f"{origin}/-/console/services") as answer:
            found = await answer.json()
            assert (found["target"], found["calls"], len(found["applications"])) == (connection.target, "console", 3)
        async with client.get(f"{origin}/-/console/cluster") as answer:
            assert (await answer.json())["cluster"] == "here"
        async with client.post(f"{origin}/-/console/calls", json=asked_of("Count", '{"number": 2}')) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            lines = [json.loads(line) async for line in answer.content]
            assert [each["event"] for each in lines] == ["headers", "message", "message", "end"]
        async with client.post(f"{origin}/-/console/calls", json=asked_of("Echo", '{"no": 1}')) as answer:
            assert answer.status == 400
            assert "has no field `no`" in (await answer.json())["message"]
        async with client.post(f"{origin}/-/console/calls", data="{}") as answer:
            assert (answer.status, "application/json" in await answer.text()) == (400, True)


async def test_only_its_own_page_may_ask(connection: ServerConnection, services: Services) -> None:
    async with opened(connection, services) as (client, origin):
        for path in ("/-/console/services", "/-/console/cluster"):
            async with client.get(f"{origin}{path}", headers={TOKEN_HEADER: "x"}) as answer:
                assert answer.status == 403
        async with client.get(f"{origin}/console", headers={"host": "evil.example"}) as answer:
            assert answer.status == 403
        call = asked_of("Echo", "{}")
        async with client.post(
            f"{origin}/-/console/calls", json=call, headers={"origin": "http://e.example"}
        ) as answer:
            assert answer.status == 403


async def test_a_page_that_leaves_cancels_its_call(connection: ServerConnection, services: Services) -> None:
    desk_server.cancelled.clear()
    async with opened(connection, services) as (client, origin):
        answer = await client.post(f"{origin}/-/console/calls", json=asked_of("Wait", "{}"))
        assert json.loads(await answer.content.readline())["event"] == "headers"
        answer.close()
        assert await asyncio.to_thread(desk_server.cancelled.wait, PATIENCE_S)


async def test_messages_of_a_stream_that_stays_open(connection: ServerConnection, services: Services) -> None:
    async with opened(connection, services) as (client, origin):
        calls = f"{origin}/-/console/calls"
        async with client.post(calls, json=asked_of("Talk", '{"title": "a"}', open=True)) as answer:
            own = f"{calls}/{answer.headers['x-console-call']}"
            assert json.loads(await answer.content.readline())["event"] == "headers"
            assert json.loads(await answer.content.readline())["message"] == {"title": "A"}
            async with client.post(own, json={"messages": ['{"titel": "b"}'], "open": True}) as sent:
                assert (sent.status, (await sent.json())["message"][:9]) == (400, "message 2")
            async with client.post(own, json={"messages": ['{"title": "b"}'], "open": True}) as sent:
                assert sent.status == 200
            assert json.loads(await answer.content.readline())["message"] == {"title": "B"}
            async with client.post(own, json={"messages": [], "open": False}) as sent:
                assert sent.status == 200
            assert json.loads(await answer.content.readline())["status"]["code"] == "OK"
            assert await answer.content.read() == b""  # the console has forgotten the call
        async with client.post(own, json={"messages": [], "open": False}) as sent:
            assert sent.status == 404


# -- the command ----------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["console", *arguments])
    return done.exit_code, done.stderr


def test_a_port_that_is_taken(server: sdk.testing.Server) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, text = run(server.target, "--port", str(port))
    assert code == 2
    assert text == (
        f"error: --port {port} on 127.0.0.1 is not free: another program listens there. Give another one, or 0.\n"
    )


def test_a_server_that_does_not_answer() -> None:
    code, text = run(f"127.0.0.1:{free_port()}", "--connect-timeout", "2")
    assert code == 2
    assert "can't be reached" in text


def test_imports_need_protos() -> None:
    code, text = run("localhost:9000", "-I", "protos")
    assert (code, "-I needs --protos" in text) == (2, True)
