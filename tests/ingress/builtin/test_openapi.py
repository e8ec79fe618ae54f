"""The OpenAPI document from the descriptors of replicas, without sockets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from google.protobuf import json_format
from user_defined_protos_sdk import USER_DEFINED_SERVICE

from sdk._ingress.builtin.openapi import OpenApi
from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._xds.snapshot import Application, Deployment, Snapshot

DIGEST, DATA = serialize_descriptors([USER_DEFINED_SERVICE])
SERVICE = "userdefinedprotos.UserDefinedService"


class Rig:
    def __init__(self) -> None:
        self.sets: dict[str, bytes] = {}
        self.snapshot = Snapshot(1, (Application("app", (Deployment("D", (SERVICE,), (), DIGEST),)),))
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        (self._binding,) = OpenApi(lambda: self.snapshot, self._fetch).bindings()

    async def _fetch(self, digest: str) -> bytes | None:
        await self.may_answer.wait()
        return self.sets.get(digest)

    async def paths(self) -> dict[str, Any]:
        document: Any = await self._binding.handler(None, SimpleNamespace(application=lambda: "app"))
        paths: dict[str, Any] = json_format.MessageToDict(document)["paths"]
        return paths


async def test_descriptors_that_no_replica_has_brought_yet_are_asked_for_again() -> None:
    rig = Rig()
    assert await rig.paths() == {}
    rig.sets[DIGEST] = DATA
    assert any(SERVICE in path for path in await rig.paths())


async def test_the_new_version_is_described_while_a_call_waits_for_descriptors_of_the_old_one() -> None:
    rig = Rig()
    rig.sets[DIGEST] = DATA
    rig.may_answer.clear()
    async with asyncio.TaskGroup() as calls:
        late = calls.create_task(rig.paths())
        await asyncio.sleep(0)
        rig.snapshot = Snapshot(2, (Application("app", (Deployment("D", (), (), ""),)),))
        assert await rig.paths() == {}
        rig.may_answer.set()
    assert late.result() != {}
    assert await rig.paths() == {}
