"""Deployments that check their messages, on Ray: the same ends of calls as in the harness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from orders_pb2 import Order
from orders_sdk import OrdersSyncClient
from ray import serve

from tests.support.cluster import Ingress
from tests.validation.order_apps import Orders, Outer, Strict
from tests.validation.refusals import check_faults, check_plain_handle, check_requests, end_of


@pytest.fixture(scope="module")
def clients(deploy: Callable[[Any, str], None], ingress: Ingress) -> Callable[[str], OrdersSyncClient]:
    deploy(Outer.bind(Orders.options(expose=False).bind()), "outer orders")
    deploy(Strict.bind(), "strict orders")
    return lambda application: OrdersSyncClient(ingress.address, application=application, timeout=20)


@pytest.mark.parametrize("application", ["strict orders", "outer orders"])
def test_requests_of_all_kinds_over_the_wire_and_through_handles(
    clients: Callable[[str], OrdersSyncClient], application: str
) -> None:
    with clients(application) as client:
        check_requests(client)
        check_faults(client)


def test_plain_handles_of_ray_serve(clients: Callable[[str], OrdersSyncClient]) -> None:
    check_plain_handle(serve.get_app_handle("strict orders"))


def test_responses_by_option(clients: Callable[[str], OrdersSyncClient]) -> None:
    with clients("strict orders") as client:
        ended = end_of(lambda: client.Place(Order(id="empty", count=1)))
        assert ended.code == "INTERNAL"
        assert "returned a message that breaks the rules of its proto" in ended.details
