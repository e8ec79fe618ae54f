"""Several applications on one port: by header, by the beginning of the path, and by service."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

import sdk.testing
from sdk import GrpcOptions
from tests.web.http_client import ask
from tests.web.protocol_forms import FORMS
from tests.web.test_protocol_table import METHODS

SAY, LOOK = "/sdk.web.Chat/Say", "/sdk.web.Chat/Look"


@pytest.fixture(scope="module")
def two() -> Iterator[sdk.testing.Server]:
    from tests.web.chat_app import Chat

    # The second name is that of a service, and the third begins HTTP routes.
    names = ("shop", "sdk.web.Chat", "v1", "with space")
    with sdk.testing.serve({name: Chat.bind() for name in names}, options=GrpcOptions(route_by_service=True)) as server:
        yield server


@pytest.fixture(scope="module")
def by_service() -> Iterator[sdk.testing.Server]:
    """Serve two applications with one service each."""
    from tests.support.desk_server import Clerk
    from tests.web.chat_app import Chat

    apps = {"chat": Chat.bind(), "desk": Clerk.bind()}
    with sdk.testing.serve(apps, options=GrpcOptions(route_by_service=True)) as server:
        yield server


def application_of(metadata: list[str]) -> str:
    (found,) = (pair for pair in metadata if pair.startswith("application: "))
    return found.removeprefix("application: ").strip("'")


@pytest.mark.parametrize("protocol", FORMS)
@pytest.mark.parametrize("method", ["Say", "Repeat"])
def test_a_path_may_begin_with_the_application(two: sdk.testing.Server, protocol: str, method: str) -> None:
    from chat_pb2 import Heard, Said

    form = FORMS[protocol]
    takes, gives = METHODS[method]
    sent = {"content-type": form.content_type(takes, gives), **form.headers}
    answer = ask(two, f"/shop/sdk.web.Chat/{method}", form.encode([Said(text="a", times=1)], takes or gives), sent)
    outcome = form.decode(answer, Heard, takes, gives)
    assert outcome.code == 0
    assert application_of(outcome.messages[0]["metadata"]) == "shop"


def test_so_may_a_get_a_route_and_the_document(two: sdk.testing.Server) -> None:
    query = f"encoding=json&message={quote('{}')}"
    assert application_of(ask(two, f"/shop{LOOK}?{query}", None).json["metadata"]) == "shop"
    assert application_of(ask(two, "/shop/v1/say", {}).json["metadata"]) == "shop"
    assert ask(two, "/shop/openapi.json", None).json["info"]["title"] == "shop"


def test_the_path_wins_over_the_header(two: sdk.testing.Server) -> None:
    answer = ask(two, f"/shop{SAY}", {}, {"application": "v1"})
    assert application_of(answer.json["metadata"]) == "shop"


def test_grpc_clients_of_several_applications(two: sdk.testing.Server) -> None:
    from chat_pb2 import Heard, Said

    say = two.channel().unary_unary(f"/shop{SAY}", Said.SerializeToString, Heard.FromString)
    assert application_of(say(Said()).metadata) == "shop"


def test_names_that_paths_begin_with_are_no_prefixes(two: sdk.testing.Server) -> None:
    # Other clients of these paths must not be cut off: the header selects the application.
    assert application_of(ask(two, SAY, {}, {"application": "v1"}).json["metadata"]) == "v1"
    assert application_of(ask(two, "/v1/say", {}, {"application": "shop"}).json["metadata"]) == "shop"
    answer = ask(two, f"/v1{SAY}", {}, {"application": "v1"})
    assert answer.status == 404


def test_an_unknown_name_is_not_found(two: sdk.testing.Server) -> None:
    answer = ask(two, f"/nobody{SAY}", {})
    assert answer.status == 404
    assert "nobody" in answer.json["message"]


@pytest.mark.parametrize("protocol", FORMS)
@pytest.mark.parametrize("method", ["Say", "Repeat"])
def test_the_service_may_select_the_application(by_service: sdk.testing.Server, protocol: str, method: str) -> None:
    from chat_pb2 import Heard, Said

    form = FORMS[protocol]
    takes, gives = METHODS[method]
    sent = {"content-type": form.content_type(takes, gives), **form.headers}
    body = form.encode([Said(text="a", times=1)], takes or gives)
    outcome = form.decode(ask(by_service, f"/sdk.web.Chat/{method}", body, sent), Heard, takes, gives)
    assert (outcome.code, outcome.messages[0]["text"]) == (0, "a")
    # The other application, to which the same bytes are a message, too.
    from desk_pb2 import Ticket

    answer = ask(by_service, "/desk.v1.Desk/Echo", form.encode([Ticket(title="b")], False), sent)
    if not gives:
        assert form.decode(answer, Ticket, takes, gives).messages[0]["title"] == "b"


def test_so_do_a_get_a_route_and_a_name_that_nobody_serves(by_service: sdk.testing.Server) -> None:
    query = f"encoding=json&message={quote('{}')}"
    assert ask(by_service, f"{LOOK}?{query}", None).status == 200
    assert ask(by_service, "/v1/say", {"text": "c"}).json["text"] == "c"
    assert ask(by_service, "/v1/repeat/d?times=1", None).lines[0]["text"] == "d"
    answer = ask(by_service, "/no.Such/Method", {})
    assert (answer.status, answer.json["code"]) == (404, "unimplemented")
    assert "No application serves 'no.Such'" in answer.json["message"]


def test_a_service_of_several_applications_needs_the_name(two: sdk.testing.Server) -> None:
    for target, asked in (SAY, "service 'sdk.web.Chat'"), ("/v1/say?times=1", "path '/v1/say'"):
        answer = ask(two, target, {})
        assert (answer.status, answer.json["code"]) == (404, "not_found")
        served = f"and {asked} is served by sdk.web.Chat, shop, v1, with space"
        assert answer.json["message"].startswith(f"Application metadata not set, {served}.")
