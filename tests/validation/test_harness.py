"""Deployments that check their messages, called by real clients through a test server."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from orders_pb2 import Divisor, Item, Note, Order
from orders_sdk import OrdersClient, OrdersSyncClient

import sdk
import sdk.testing
from sdk import GrpcOptions, RpcError
from tests.validation.order_apps import NOTING, Strict
from tests.validation.refusals import (
    BAD,
    FIELDS,
    GOOD,
    check_faults,
    check_plain_handle,
    check_requests,
    end_of,
    refused,
)

pytestmark = pytest.mark.timeout(60)


def client(server: Any, application: str, **options: Any) -> OrdersSyncClient:
    found: OrdersSyncClient = server.client(OrdersSyncClient, application=application, **options)
    return found


@pytest.mark.parametrize("application", ["orders", "strict", "sync", "outer", "intercepted"])
def test_requests_of_all_kinds(server: Any, application: str) -> None:
    check_requests(client(server, application))


@pytest.mark.parametrize("application", ["orders", "sync"])
def test_a_rule_that_can_not_be_evaluated_is_the_fault_of_the_server(
    server: Any, application: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "sdk.wire"):
        check_faults(client(server, application))
    assert ["RuleError" in record.exc_text for record in caplog.records if record.exc_text] == [True]


@pytest.mark.parametrize("application", ["strict", "sync"])
def test_responses_are_checked_by_option(server: Any, application: str, caplog: pytest.LogCaptureFixture) -> None:
    strict = client(server, application)
    ended = end_of(lambda: strict.Place(Order(id="empty", count=1)))
    assert (ended.code, ended.fields) == ("INTERNAL", [])
    said = "Place returned a message that breaks the rules of its proto: text: must be at least 1 characters"
    assert said in ended.details
    assert any("InvalidResponseError" in (record.exc_text or "") for record in caplog.records)
    ended = end_of(lambda: strict.Follow(Order(id="empty", count=1)))
    assert (ended.messages, ended.code) == (["empty"], "INTERNAL")
    assert end_of(lambda: client(server, "orders").Place(Order(id="empty", count=1))).messages == [""]


def test_each_rpc_has_its_own_checks(server: Any) -> None:
    some = client(server, "some")
    assert end_of(lambda: some.Place(BAD)).messages == ["a"]
    assert end_of(lambda: some.Follow(BAD)).messages == ["a", "there"]
    assert end_of(lambda: some.Follow(Order(id="empty"))).code == "INTERNAL"
    assert end_of(lambda: some.Collect([BAD])) == refused()


def test_interceptors_run_before_the_checks(server: Any) -> None:
    NOTING.seen.clear()
    assert end_of(lambda: client(server, "intercepted").Place(BAD)) == refused()
    assert NOTING.seen == ["/orders.Orders/Place"]


def test_messages_that_a_handler_reads_and_writes(server: Any) -> None:
    reading = client(server, "reading")
    ended = end_of(lambda: reading.Exchange([GOOD, BAD, GOOD]))
    assert ended.code == "OK"
    assert ended.messages == ["abc", refused().details, "abc"]
    ended = end_of(lambda: reading.Exchange([GOOD, Order(id="empty", count=1), GOOD]))
    assert (ended.messages, ended.code) == (["abc"], "INTERNAL")


@pytest.mark.parametrize("application", ["strict", "sync"])
def test_plain_handles_of_ray_serve(server: Any, application: str) -> None:
    check_plain_handle(server.handle(application))


def test_compressed_requests(server: Any) -> None:
    compressed = {"compression": grpc.Compression.Gzip}
    assert end_of(lambda: client(server, "orders").Place(BAD, **compressed)) == refused()
    assert end_of(lambda: client(server, "orders").Collect([GOOD, BAD], **compressed)) == refused()


def test_clients_do_not_see_the_reason_if_errors_are_hidden() -> None:
    with sdk.testing.serve(Strict.bind(), options=GrpcOptions(error_details="none")) as server:
        hidden = server.client(OrdersSyncClient)
        assert end_of(lambda: hidden.Place(Order(id="empty", count=1))).details == "Internal error."
        assert end_of(lambda: hidden.Place(BAD)) == refused()  # the client's own fault


def test_as_many_violations_as_fit_into_trailers(server: Any) -> None:
    ended = end_of(lambda: client(server, "orders").Place(Order(id="abc", count=1, items=[Item()] * 500)))
    assert ended.details.endswith("items[2].sku: must be at least 1 characters; and 497 more")
    assert 10 < len(ended.fields) < 500
    assert len(ended.fields) == len(ended.rules)


def test_of_a_long_message_only_the_first_violation_is_looked_for(server: Any) -> None:
    note = Item(sku="x" * 70_000)
    ended = end_of(lambda: client(server, "orders").Place(Order(id="a", items=[note])))
    assert (ended.fields, ended.rules) == (["id"], ["string.min_len"])


def test_a_blocking_client_checks_before_it_sends() -> None:
    # Nobody listens there: a call that is sent ends UNAVAILABLE.
    with OrdersSyncClient("127.0.0.1:1", validate=True, retry=None) as checking:
        for call in (
            lambda: checking.Place(BAD),
            lambda: checking.Place.with_call(BAD),
            lambda: checking.Follow(BAD),
        ):
            with pytest.raises(RpcError) as raised:
                call()
            assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
            bad = raised.value.find(BadRequest)
            assert bad is not None
            assert [each.field for each in bad.field_violations] == FIELDS
        for request in (GOOD, Note()):
            with pytest.raises(grpc.RpcError) as sent:
                checking.Place(request) if isinstance(request, Order) else checking.Echo(request)
            assert sent.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert isinstance(pickle.loads(pickle.dumps(raised.value)), RpcError)


def test_a_blocking_client_checks_each_message_of_a_stream(server: Any) -> None:
    checking = client(server, "some", validate=True)
    assert checking.Collect([GOOD]).text == "abc"
    with pytest.raises(RpcError, match="id: must be at least 2 characters"):
        checking.Collect([GOOD, BAD])


async def test_an_async_client_checks_before_it_sends(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with OrdersClient(server.target, application="some", validate=True) as checking:
        assert (await checking.Place(GOOD)).text == "abc"
        with pytest.raises(RpcError, match="id: must be"):
            checking.Place(BAD)
        call = checking.Exchange()
        await call.write(GOOD)
        with pytest.raises(RpcError, match="id: must be"):
            await call.write(BAD)
        call.cancel()
        upload = checking.Collect()
        with pytest.raises(RpcError, match="id: must be"):
            await upload.write(BAD)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):  # grpc gives no reason: the log has it
            await checking.Collect([GOOD, BAD])
    assert "id: must be at least 2 characters" in caplog.text


async def test_an_async_client_checks_a_rule_that_can_not_be_evaluated(server: Any) -> None:
    async with OrdersClient(server.target, application="some", validate=True) as checking:
        with pytest.raises(sdk.RuleError, match="of orders") as raised:
            checking.Divide(Divisor())
    restored = pickle.loads(pickle.dumps(raised.value))
    assert str(restored) == str(raised.value)
