"""Calls that end because a message breaks a rule, in each protocol: the same status, message and details everywhere."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from buf.validate.validate_pb2 import Violations
from google.rpc.error_details_pb2 import BadRequest
from orders_pb2 import Divisor, Note, Order, Receipt

import sdk.testing
from tests.validation.refusals import BAD, FIELDS, GOOD, RULES, refused
from tests.web.http_client import Answer, ask
from tests.web.protocol_forms import FORMS, Outcome

INVALID, INTERNAL = 3, 13
#: Method → whether its request and its response are streams.
METHODS = {
    "Place": (False, False),
    "Follow": (False, True),
    "Collect": (True, False),
    "Exchange": (True, True),
    "Divide": (False, False),
}


def call(server: sdk.testing.Server, protocol: str, application: str, method: str, *requests: Any) -> Outcome:
    form, (takes, gives) = FORMS[protocol], METHODS[method]
    headers = {"content-type": form.content_type(takes, gives), "application": application, **form.headers}
    answer = ask(server, f"/orders.Orders/{method}", form.encode(requests, takes or gives), headers)
    return form.decode(answer, Note if method == "Divide" else Receipt, takes, gives)


def texts(outcome: Outcome) -> list[str]:
    return [each.get("text", "") for each in outcome.messages]


@pytest.mark.parametrize("application", ["orders", "sync", "outer", "intercepted"])
@pytest.mark.parametrize("method", ["Place", "Follow", "Collect", "Exchange"])
@pytest.mark.parametrize("protocol", FORMS)
def test_requests_of_all_kinds(server: sdk.testing.Server, protocol: str, method: str, application: str) -> None:
    takes, gives = METHODS[method]
    good = call(server, protocol, application, method, *[GOOD] * (1 + takes))
    assert good.code == 0
    assert (
        texts(good)
        == {
            "Place": ["abc"],
            "Follow": ["abc", "there"],
            "Collect": ["abc abc"],
            "Exchange": ["abc", "abc"],
        }[method]
    )
    bad = call(server, protocol, application, method, *([GOOD] if takes else []), BAD)
    assert texts(bad) == (["abc"] if takes and gives else [])
    assert (bad.code, bad.message) == (INVALID, refused().details)
    assert bad.details == ["google.rpc.BadRequest", "buf.validate.Violations"]


@pytest.mark.parametrize("application", ["strict", "sync"])
@pytest.mark.parametrize("method", ["Place", "Follow"])
@pytest.mark.parametrize("protocol", FORMS)
def test_responses_by_option(server: sdk.testing.Server, protocol: str, method: str, application: str) -> None:
    outcome = call(server, protocol, application, method, Order(id="empty", count=1))
    assert texts(outcome) == (["empty"] if method == "Follow" else [])
    assert outcome.code == INTERNAL
    assert "returned a message that breaks the rules of its proto: text: must be at least 1" in outcome.message


@pytest.mark.parametrize("protocol", FORMS)
def test_a_rule_that_can_not_be_evaluated_is_the_fault_of_the_server(server: sdk.testing.Server, protocol: str) -> None:
    outcome = call(server, protocol, "orders", "Divide", Divisor())
    assert (outcome.code, outcome.details) == (INTERNAL, [])
    assert "error evaluating divisor: divide by zero" in outcome.message


def details(answer: Answer) -> tuple[list[str], list[str]]:
    """Return the fields and the rules in the details of a JSON error."""
    bad, violations = answer.json["details"]
    assert [each["field"] for each in bad["debug"]["fieldViolations"]] == [
        each.field for each in BadRequest.FromString(_bytes(bad)).field_violations
    ]
    fields = [each["field"] for each in bad["debug"]["fieldViolations"]]
    return fields, [each.rule_id for each in Violations.FromString(_bytes(violations)).violations]


def _bytes(detail: dict[str, Any]) -> bytes:
    return base64.b64decode(detail["value"] + "==")


def test_the_details_of_a_json_error_name_fields_and_rules(server: sdk.testing.Server) -> None:
    body = FORMS["json"].encode([BAD], False)
    answer = ask(server, "/orders.Orders/Place", body, {"application": "orders"})
    assert answer.status == 400
    assert details(answer) == (FIELDS, RULES)


def test_a_get_request(server: sdk.testing.Server) -> None:
    message = quote(json.dumps({"number": 2000}))
    target = f"/orders.Orders/Divide?connect=v1&encoding=json&message={message}"
    answer = ask(server, target, None, {"application": "orders"})
    assert answer.status == 400
    assert details(answer) == (["number"], ["divisor"])
