"""Calls with a client that end because a message breaks a rule: the same wherever the service runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import pytest
from buf.validate.validate_pb2 import Violations
from google.rpc.error_details_pb2 import BadRequest
from orders_pb2 import Divisor, Item, Note, Order
from orders_sdk import OrdersSyncClient

from sdk import RpcError, error_details

GOOD = Order(id="abc", count=1)
BAD = Order(id="a", items=[Item(sku="x"), Item()], gifts={'to "me"': Item()})
FIELDS = ["id", "count", "items[1].sku", 'gifts["to \\"me\\""].sku']
RULES = ["string.min_len", "int32.gt", "string.min_len", "string.min_len"]


class Ended(NamedTuple):
    """The end of a call: messages before it, status, and the two details as (fields, rules)."""

    messages: list[str]
    code: str
    details: str
    fields: list[str]
    rules: list[str]


def end_of(call: Callable[[], Any]) -> Ended:
    messages: list[str] = []
    try:
        result = call()
        if hasattr(result, "text"):
            return Ended([result.text], "OK", "", [], [])
        for receipt in result:
            messages.append(receipt.text)  # noqa: PERF401  # those before an error count
    except grpc.RpcError as error:
        fields: list[str] = []
        rules: list[str] = []
        for detail in error_details(error):
            if isinstance(detail, BadRequest):
                fields = [each.field for each in detail.field_violations]
            elif isinstance(detail, Violations):
                rules = [each.rule_id for each in detail.violations]
        return Ended(messages, error.code().name, error.details() or "", fields, rules)  # type: ignore[attr-defined]
    return Ended(messages, "OK", "", [], [])


def refused(messages: list[str] | None = None) -> Ended:
    text = (
        "id: must be at least 2 characters; count: must be greater than 0; items[1].sku: must be at least 1 characters"
    )
    return Ended(messages or [], "INVALID_ARGUMENT", f"{text}; and 1 more", FIELDS, RULES)


def check_requests(client: OrdersSyncClient) -> None:
    """Check every kind of call with right and with wrong requests."""
    assert end_of(lambda: client.Place(GOOD)) == Ended(["abc"], "OK", "", [], [])
    assert end_of(lambda: client.Follow(GOOD)).messages == ["abc", "there"]
    assert end_of(lambda: client.Collect([GOOD, GOOD])).messages == ["abc abc"]
    assert end_of(lambda: client.Exchange([GOOD, GOOD])).messages == ["abc", "abc"]
    assert end_of(lambda: client.Echo(Note())).code == "OK"
    assert end_of(lambda: client.Place(BAD)) == refused()
    assert end_of(lambda: client.Follow(BAD)) == refused()
    assert end_of(lambda: client.Collect([GOOD, BAD])) == refused()
    assert end_of(lambda: client.Exchange([GOOD, BAD])) == refused(["abc"])
    whole = end_of(lambda: client.Place(Order(id="abc", count=101)))
    assert whole[1:] == ("INVALID_ARGUMENT", "an order of more than 100 has items", [""], ["order.items"])


def check_faults(client: OrdersSyncClient) -> None:
    """Check that a rule that can't be evaluated is the server's fault."""
    assert end_of(lambda: client.Divide(Divisor(number=5))).messages == ["200"]
    assert end_of(lambda: client.Divide(Divisor(number=2000))).fields == ["number"]
    ended = end_of(lambda: client.Divide(Divisor()))
    assert (ended.code, ended.fields) == ("INTERNAL", [])
    assert (
        "a validation rule of orders.Divisor does not work: error evaluating divisor: divide by zero" in ended.details
    )


def check_plain_handle(handle: Any) -> None:
    """Check calls through Ray Serve's own handle, which calls the method of the replica's object."""
    assert handle.Place.remote(GOOD).result().text == "abc"
    assert [each.text for each in handle.options(stream=True).Follow.remote(GOOD)] == ["abc", "there"]
    refusals = (handle.Place.remote(BAD).result, lambda: list(handle.options(stream=True).Follow.remote(BAD)))
    for call in refusals:
        with pytest.raises(Exception, match="id: must be at least 2 characters") as raised:
            call()
        assert isinstance(getattr(raised.value, "cause", raised.value), RpcError)
    with pytest.raises(Exception, match="breaks the rules of its proto"):
        handle.Place.remote(Order(id="empty", count=1)).result()
