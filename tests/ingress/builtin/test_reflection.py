"""Server reflection from the descriptors of replicas, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from user_defined_protos_sdk import USER_DEFINED_SERVICE

from sdk._gen import reflection_pb2 as pb
from sdk._ingress.builtin.bindings import OpenStreams
from sdk._ingress.builtin.reflection import ReflectionServicer, serialize_descriptors
from sdk._ingress.builtin.services import SERVICES
from sdk._protos.descriptors import Descriptors
from sdk._xds.snapshot import Application, Deployment, Snapshot

V1ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class Rig:
    def __init__(self, *applications: tuple[str, str, str, bytes]) -> None:
        self.fetched: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.sets = {digest: data for _, _, digest, data in applications}
        self.snapshot = Snapshot(
            1,
            tuple(
                Application(name, (Deployment("D", (service,), (), digest),))
                for name, service, digest, _ in applications
            ),
        )
        servicer = ReflectionServicer(lambda: self.snapshot, self._fetch, SERVICES, OpenStreams(2))
        handlers = {binding.method.path: binding.handler for binding in servicer.bindings()}
        assert set(handlers) == {V1ALPHA, V1ALPHA.replace("v1alpha", "v1")}
        self._method = handlers[V1ALPHA]

    async def _fetch(self, digest: str) -> bytes | None:
        self.fetched.append(digest)
        await self.may_answer.wait()
        return self.sets.get(digest)

    async def ask(self, application: str = "", **request: Any) -> Any:
        async def requests() -> AsyncIterator[Any]:
            yield pb.ServerReflectionRequest(**request)

        context = SimpleNamespace(application=lambda: application or None)

        async def call() -> Any:
            return [answer async for answer in self._method(requests(), context)]

        (answer,) = await call()
        return answer

    async def services(self, application: str = "") -> set[str]:
        listed = (await self.ask(application, list_services="")).list_services_response.service
        return {service.name for service in listed} - SERVICES

    async def file_of(self, symbol: str, application: str = "") -> FileDescriptorProto | None:
        answer = await self.ask(application, file_containing_symbol=symbol)
        if answer.HasField("error_response"):
            assert answer.error_response.error_code == 5
            return None
        return FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])


def file(name: str, package: str, message: str) -> bytes:
    proto = FileDescriptorProto(name=name, package=package, syntax="proto3")
    proto.message_type.add(name=message)
    proto.service.add(name="S")
    return FileDescriptorSet(file=[proto]).SerializeToString()


def test_imports_come_before_the_files_that_import_them() -> None:
    pool = DescriptorPool()
    base = FileDescriptorProto(name="base.proto", package="b", syntax="proto3")
    base.message_type.add(name="B")
    user = FileDescriptorProto(name="user.proto", package="u", syntax="proto3", dependency=["base.proto"])
    pool.Add(base)
    pool.Add(user)
    services = [SimpleNamespace(file=pool.FindFileByName(name), comments={}) for name in ("user.proto", "base.proto")]
    digest, data = serialize_descriptors(services)
    assert [each.name for each in FileDescriptorSet.FromString(data).file] == ["base.proto", "user.proto"]
    assert serialize_descriptors(services[:1]) == (digest, data)


async def test_services_and_files_come_from_the_replicas() -> None:
    rig = Rig(("app", "userdefinedprotos.UserDefinedService", *serialize_descriptors([USER_DEFINED_SERVICE])))
    assert await rig.services() == {"userdefinedprotos.UserDefinedService"}
    found = await rig.file_of("userdefinedprotos.UserDefinedService")
    assert found is not None
    assert [service.name for service in found.service] == ["UserDefinedService", "ImageClassificationService"]
    assert await rig.file_of("userdefinedprotos.Nothing") is None
    assert len(rig.fetched) == 1, "fetched once"


async def test_the_files_have_the_comments_of_their_protos() -> None:
    rig = Rig(("app", "userdefinedprotos.UserDefinedService", *serialize_descriptors([USER_DEFINED_SERVICE])))
    found = await rig.file_of("userdefinedprotos.UserDefinedService")
    assert found is not None
    known = Descriptors(FileDescriptorSet(file=[found]), "the replica")
    assert known.comment("userdefinedprotos.UserDefinedService.Multiplexing") == [
        "Answers with the model that the `multiplexed_model_id` metadata names."
    ]
    assert known.location(known.services["userdefinedprotos.UserDefinedService"]) == found.name


async def test_the_services_of_the_proxy_are_described_too() -> None:
    rig = Rig()
    for service in SERVICES:
        found = await rig.file_of(service)
        assert found is not None
        assert f"{found.package}.{found.service[0].name}" == service


async def test_reflection_is_separate_for_each_application() -> None:
    rig = Rig(("a", "x.S", "1", file("x.proto", "x", "Old")), ("b", "x.S", "2", file("x.proto", "x", "New")))
    for application, message in (("a", "Old"), ("b", "New"), ("", "Old")):
        found = await rig.file_of("x.S", application)
        assert found is not None
        assert [each.name for each in found.message_type] == [message]
    assert await rig.services("c") == set()


async def test_a_new_version_of_an_application_replaces_the_old_one() -> None:
    rig = Rig(("a", "x.S", "1", file("x.proto", "x", "Old")))
    assert await rig.file_of("x.Old") is not None
    rig.sets["2"] = file("x.proto", "x", "New")
    rig.snapshot = Snapshot(2, (Application("a", (Deployment("D", ("x.S",), (), "2"),)),))
    assert await rig.file_of("x.Old") is None
    assert await rig.file_of("x.New") is not None


async def test_the_new_version_is_described_while_a_call_waits_for_files_of_the_old_one() -> None:
    rig = Rig(("a", "x.S", "1", file("x.proto", "x", "Old")))
    rig.may_answer.clear()
    async with asyncio.TaskGroup() as calls:
        late = calls.create_task(rig.file_of("x.Old"))
        while not rig.fetched:
            await asyncio.sleep(0)
        rig.snapshot = Snapshot(2, (Application("a", (Deployment("D", ("y.S",), (), ""),)),))
        assert await rig.services() == {"y.S"}
        rig.may_answer.set()
    assert late.result() is not None
    assert await rig.services() == {"y.S"}


async def test_files_that_no_replica_has_brought_yet_are_asked_for_again() -> None:
    rig = Rig(("a", "x.S", "1", file("x.proto", "x", "New")))
    files = rig.sets.pop("1")
    assert (await rig.services(), await rig.file_of("x.New")) == ({"x.S"}, None)
    rig.sets["1"] = files
    assert await rig.file_of("x.New") is not None


async def test_an_application_without_descriptors_is_listed() -> None:
    rig = Rig(("a", "x.S", "", b""))
    assert await rig.services() == {"x.S"}
    assert await rig.file_of("x.S") is None
