"""Errors of Ray while a program looks for the proxies that know where replicas are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RpcError

from sdk._serve import endpoint_source


@pytest.fixture(autouse=True)
def silent_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> Any:
        raise RpcError("the GCS does not answer")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", fail)
    monkeypatch.setattr(ray, "get_actor", fail)
    monkeypatch.setattr(ray.util, "list_named_actors", fail)


def test_ray_that_does_not_answer_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionError, match="the GCS does not answer"):
        endpoint_source.node_id()
    with pytest.raises(ConnectionError, match="the GCS does not answer"):
        endpoint_source.has_ingress()
    with pytest.raises(ConnectionError, match="the GCS does not answer"):
        endpoint_source.distant_proxy("here")


def test_a_proxy_that_has_ended_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Actor:
        poll_endpoints: Any = None

    async def die(*args: object) -> list[bytes]:
        raise ActorDiedError

    actor = Actor()
    actor.poll_endpoints = Actor()
    actor.poll_endpoints.remote = die
    with pytest.raises(ConnectionError):
        asyncio.run(endpoint_source.DistantProxy(actor).poll("p", {}))
