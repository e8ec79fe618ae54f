"""Data for the page of the console, without sockets."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from user_defined_protos_sdk import USER_DEFINED_SERVICE

from sdk._ingress.builtin import console
from sdk._ingress.builtin.console import ConsoleData
from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._ingress.registry import ProxyState
from sdk._replica_protocol import CATALOG_PATH, INGRESS_STATE_PATH
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot

DIGEST, DATA = serialize_descriptors([USER_DEFINED_SERVICE])
SERVICE = "userdefinedprotos.UserDefinedService"


class Rig:
    def __init__(self, snapshot: Snapshot, *proxies: ProxyState) -> None:
        self.snapshot, self.proxies = snapshot, proxies
        self.fetched: list[str] = []
        self.asked = 0
        data = ConsoleData(lambda: self.snapshot, self._fetch, self._fetch_proxies)
        self._handlers = {binding.method.path: binding.handler for binding in data.bindings()}

    async def _fetch(self, digest: str) -> bytes | None:
        self.fetched.append(digest)
        return DATA if digest == DIGEST else None

    async def _fetch_proxies(self) -> tuple[ProxyState, ...]:
        self.asked += 1
        return self.proxies

    async def get(self, path: str) -> Any:
        return json_format.MessageToDict(await self._handlers[path](None))


def table(version: int, *deployments: Deployment) -> Snapshot:
    return Snapshot(version, (Application("app", deployments),))


async def test_each_application_has_its_services_and_types() -> None:
    rig = Rig(table(1, Deployment("D", (SERVICE,), (), DIGEST), Deployment("E", ("a.B",), (), "unknown")))
    found = await rig.get(CATALOG_PATH)
    assert found["calls"] == "connect"
    (application,) = found["applications"]
    assert application["name"] == "app"
    assert [each["name"] for each in application["services"]] == [SERVICE]
    assert "userdefinedprotos.UserDefinedMessage" in {each["name"] for each in application["types"]}


async def test_descriptors_are_fetched_again_for_a_new_table_only() -> None:
    rig = Rig(table(1, Deployment("D", (SERVICE,), (), DIGEST), Deployment("E", (SERVICE,), (), DIGEST)))
    await rig.get(CATALOG_PATH)
    await rig.get(CATALOG_PATH)
    assert rig.fetched == [DIGEST]
    rig.snapshot = table(2)
    (application,) = (await rig.get(CATALOG_PATH))["applications"]
    assert (application["services"], rig.fetched) == ([], [DIGEST])


async def test_descriptors_that_no_replica_has_brought_yet_are_fetched_again() -> None:
    rig = Rig(table(1, Deployment("D", (SERVICE,), (), "unknown")))
    for _ in range(2):
        (application,) = (await rig.get(CATALOG_PATH))["applications"]
        assert application["services"] == []
    assert rig.fetched == ["unknown", "unknown"]


async def test_the_state_has_replicas_and_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment("D", (SERVICE,), (Endpoint("r", "127.0.0.1", 1),), DIGEST)
    good = ProxyState("p", "n1", "127.0.0.1:9000", 7, 42)
    rig = Rig(table(7, deployment), good, ProxyState("q", "n2", "127.0.0.1:9001", 6, 43))
    found = (await rig.get(INGRESS_STATE_PATH))["status"]
    assert (found["healthy"], found["version"]) == (False, 7)
    assert found["applications"][0]["deployments"][0]["replicas"] == 1
    assert [(each["address"], each["up_to_date"]) for each in found["proxies"]] == [
        ("127.0.0.1:9000", True),
        ("127.0.0.1:9001", False),
    ]
    rig.proxies = (good,)
    await rig.get(INGRESS_STATE_PATH)
    assert rig.asked == 1  # pages that ask at the same time cost the controller one call
    monkeypatch.setattr(console, "_KEPT_S", -1.0)
    found = await rig.get(INGRESS_STATE_PATH)
    assert found["status"]["healthy"]
    assert (found["calls"], found["problems"]) == (None, ["Calls are counted on a Ray cluster only."])
