"""Live options: the controller as a plain object, with a fake store instead of the GCS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from sdk import GrpcOptions
from sdk._ingress import controller, option_store, proxy_fleet
from sdk._ingress.controller import Controller
from sdk._ingress.envoy.listening import listener_config
from sdk._ingress.proxy import NodeProxy
from sdk._ingress.registry import ProxyState, Registry, Replica
from sdk._xds.snapshot import Endpoint
from sdk.access import Access, ApiKey, Certificate, JwtIssuer, Limit, Rule, Token
from sdk.options import LIVE_OPTIONS
from tests.support.fake_serve import EmptyServe

FIRST = GrpcOptions(port=9001)
CHANGED_ACCESS = Access(
    issuers=(JwtIssuer("https://id.example.org", "/etc/jwks.json", claims=("sub",)),),
    api_keys="/etc/keys",
    rules=(Rule([Token(claims={"roles": "admin"}), ApiKey("batch"), Certificate("*.example.org")]), Rule("anyone")),
    limits=(Limit(10, per_identity=True),),
)
CHANGED = GrpcOptions(
    port=9001,
    request_timeout_s=4.5,
    route_by_service=True,
    error_details="none",
    max_receive_message_length=1000,
    grpc_servicer_functions=("t.T",),
    access=CHANGED_ACCESS,
)
REPLICA = Replica("app", "D", ("t.T", "t.Private"), Endpoint("r", "127.0.0.1", 4000))


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
    """Contents of the fake GCS."""
    kept: dict[bytes, bytes] = {}
    kv = SimpleNamespace(
        _internal_kv_get=lambda key, namespace: kept.get(key),
        _internal_kv_put=lambda key, value, namespace: kept.update({key: value}),
        _internal_kv_del=lambda key, namespace: kept.pop(key, None),
    )
    monkeypatch.setattr(option_store, "internal_kv", kv)
    monkeypatch.setattr(option_store, "_key", lambda: b"options")
    monkeypatch.setattr(controller, "log_to_file", lambda actor, name: None)
    monkeypatch.setattr(proxy_fleet, "alive_nodes", dict)
    monkeypatch.setattr(proxy_fleet, "nodes_with_proxy", set)
    return kept


@asynccontextmanager
async def running(options: GrpcOptions = FIRST) -> AsyncIterator[Controller]:
    made = Controller.__new__(Controller)
    await made.__init__(options, EmptyServe())  # type: ignore[misc,func-returns-value]
    try:
        yield made
    finally:
        made._reconcile_task.cancel()
        await made._activator.stop()


async def options_of(it: Controller) -> GrpcOptions:
    return (await it.status()).options


async def test_a_change_is_in_force_when_every_replica_has_applied_it() -> None:
    async with running() as it:
        assert await it.register(REPLICA, b"", 1, FIRST)
        change = asyncio.ensure_future(it.reconfigure(CHANGED, 5))
        while await options_of(it) != CHANGED:
            await asyncio.sleep(0)
        lease = await it.renew("r", FIRST)
        assert lease is not None
        assert lease.options == CHANGED
        assert not change.done(), "the replica has received the options, but has not reported to serve with them"
        await it.renew("r", CHANGED)
        assert await change == ""


async def test_a_change_is_in_force_when_every_proxy_has_acknowledged_it() -> None:
    async with running() as it:
        before = (await it.status()).snapshot
        await it.report(ProxyState("p", "n", "127.0.0.1:9001", version=before.version))
        change = asyncio.ensure_future(it.reconfigure(CHANGED, 5))
        while (snapshot := (await it.status()).snapshot) == before:
            await asyncio.sleep(0)
        assert (snapshot.request_timeout_s, snapshot.route_by_service) == (4.5, True)
        await asyncio.sleep(0.05)
        assert not change.done()
        await it.report(ProxyState("p", "n", "127.0.0.1:9001", version=snapshot.version))
        assert await change == ""


async def test_a_timeout_names_those_that_are_late_and_the_change_stays() -> None:
    async with running() as it:
        await it.register(REPLICA, b"", 1, FIRST)
        await it.report(ProxyState("p", "n", "127.0.0.1:9001", version=1))
        assert await it.reconfigure(CHANGED, 0.05) == "a proxy, r"
        assert await options_of(it) == CHANGED


async def test_a_replica_that_registers_with_old_options_must_get_another_lease() -> None:
    async with running() as it:
        await it.reconfigure(CHANGED, 5)
        assert not await it.register(REPLICA, b"", 1, FIRST)
        assert (await it.status()).snapshot.applications == ()
        assert await it.register(REPLICA, b"", 1, CHANGED)
        assert await it.reconfigure(CHANGED, 0) == "", "the replica serves with them already"


async def test_the_last_of_several_concurrent_changes_wins(store: dict[bytes, bytes]) -> None:
    many = [GrpcOptions(port=9001, request_timeout_s=n, max_receive_message_length=n) for n in range(1, 20)]
    async with running() as it:
        assert await asyncio.gather(*(it.reconfigure(options, 5) for options in many)) == [""] * len(many)
        last = await options_of(it)
        assert last == many[-1]
    async with running() as it:
        assert await options_of(it) == last, "the stored options are the published ones"


async def test_a_restarted_controller_has_the_changed_options(store: dict[bytes, bytes]) -> None:
    async with running() as it:
        await it.reconfigure(CHANGED, 5)
    async with running() as it:
        assert (await it.lease()).options == CHANGED, "in the first lease"
        await it.stop()
    assert not store, "stopping the ingress deletes the stored options"


async def test_fixed_options_do_not_change() -> None:
    async with running() as it:
        await it.reconfigure(GrpcOptions(port=9009, error_details="message"), 5)
        assert await options_of(it) == GrpcOptions(port=9001, error_details="message")


async def test_nothing_changes_if_the_store_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(options: GrpcOptions) -> None:
        raise ray.exceptions.RaySystemError("no GCS")

    async with running() as it:
        monkeypatch.setattr(option_store, "save", fail)
        with pytest.raises(ray.exceptions.RaySystemError):
            await it.reconfigure(CHANGED, 5)
        assert await options_of(it) == FIRST


async def test_loading_is_retried_until_the_gcs_answers(
    monkeypatch: pytest.MonkeyPatch, store: dict[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([ray.exceptions.RaySystemError("away"), b'{"request_timeout_s": 3}'])

    def get(key: bytes, namespace: str) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(option_store.internal_kv, "_internal_kv_get", get)
    assert await option_store.load(FIRST) == GrpcOptions(port=9001, request_timeout_s=3)
    assert "away" in caplog.text


def test_hidden_services_can_be_shown_again_also_after_a_restart() -> None:
    registry = Registry(lease_s=5, first_version=1, options=GrpcOptions(grpc_servicer_functions=("t.T",)))
    registry.register(REPLICA)
    registry.deregister("r")  # it scales to zero, and does not register again
    (hiding,) = registry.snapshot.applications[0].deployments
    assert (hiding.services, hiding.hidden) == (("t.T",), ("t.Private",))
    for known in registry, Registry(lease_s=5, first_version=1):
        known.adopt(registry.snapshot)
        version = known.snapshot.version
        known.reconfigure(GrpcOptions(grpc_servicer_functions=("t.Private",)))
        assert known.snapshot.applications[0].deployments[0].services == ("t.Private",)
        assert known.snapshot.listed_services_only
        assert known.snapshot.version > version
        known.reconfigure(GrpcOptions())
        assert known.snapshot.applications[0].deployments[0].services == ("t.T", "t.Private")
        assert not known.snapshot.listed_services_only


def test_a_change_does_not_wait_for_a_removed_replica() -> None:
    registry = Registry(lease_s=5, first_version=1)
    registry.register(REPLICA)
    registry.reconfigure(CHANGED)
    assert registry.outdated_replicas == ("r",)
    registry.deregister("r")
    assert registry.outdated_replicas == ()


def test_live_options_do_not_change_the_listener(tmp_path: Path) -> None:
    assert set(LIVE_OPTIONS) == {name for name in LIVE_OPTIONS if getattr(FIRST, name) != getattr(CHANGED, name)}
    assert listener_config(FIRST, tmp_path, has_gate=True) == listener_config(CHANGED, tmp_path, has_gate=True)


def test_live_options_do_not_change_the_digest(tmp_path: Path) -> None:
    digests = set()
    for options in FIRST, CHANGED:
        proxy = NodeProxy.__new__(NodeProxy)
        proxy._options, proxy._folder, proxy._state = options, tmp_path, ProxyState("p", "n", "127.0.0.1:9001")
        digests.add(proxy._envoy_config()[0].digest)
    assert len(digests) == 1, "a proxy that starts after the change adopts the Envoy"
