"""`@grpc_deployment(partial=True)`: a class that implements a part of its services."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import grpc
import pytest
from user_defined_protos_pb2 import ImageClass, ImageData, UserDefinedMessage, UserDefinedResponse
from user_defined_protos_sdk import (
    ImageClassificationServiceBase,
    ImageClassificationServiceSyncClient,
    UserDefinedServiceBase,
    UserDefinedServiceHandle,
    UserDefinedServiceSyncClient,
)

import sdk.testing
from sdk import DefinitionError, OptionsError, RpcError, grpc_deployment
from sdk._contract.definition import definition_of
from sdk._serve.update_check import check_classes


@grpc_deployment(partial=True)
class Part(UserDefinedServiceBase):
    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        return UserDefinedResponse(greeting=f"hi {request.name}")

    async def multiplex_loader(self) -> None: ...


@grpc_deployment(partial=True)
class Front(ImageClassificationServiceBase):
    def __init__(self, part: UserDefinedServiceHandle) -> None:
        self.part = part

    async def Predict(self, request: ImageData) -> ImageClass:
        try:
            async for _ in self.part.Streaming(UserDefinedMessage(name="you")):
                pass
        except RpcError as error:
            return ImageClass(classes=[error.code.name, error.details])
        return ImageClass()


PATH = "/userdefinedprotos.UserDefinedService/"


def test_the_definition_knows_what_is_missing() -> None:
    definition = definition_of(Part)
    assert definition is not None
    assert definition.unimplemented == (f"{PATH}Multiplexing", f"{PATH}Streaming")
    assert [binding.method.name for binding in definition.bindings(Part())] == ["__call__"]
    assert pickle.loads(pickle.dumps(definition)) == definition
    check_classes(Part.bind())


def test_a_misspelled_method_is_a_problem_all_the_same() -> None:
    class Misspelled(UserDefinedServiceBase):
        async def streaming(self, request: UserDefinedMessage) -> Iterator[UserDefinedResponse]: ...  # type: ignore[empty-body]

    with pytest.raises(DefinitionError, match=r"rename `streaming` to `Streaming`") as raised:
        grpc_deployment(partial=True)(Misspelled)
    assert len(raised.value.problems) == 1


def test_a_wrong_signature_is_a_problem_all_the_same() -> None:
    class Wrong(UserDefinedServiceBase):
        async def Multiplexing(self, request: UserDefinedMessage) -> ImageClass: ...  # type: ignore[empty-body, override]

    with pytest.raises(DefinitionError) as raised:
        grpc_deployment(partial=True)(Wrong)
    assert [problem.rule for problem in raised.value.problems] == ["request-type", "response-type"]


def test_a_value_that_is_no_bool() -> None:
    with pytest.raises(OptionsError, match=r"^Front: partial must be True or False, not 1"):
        grpc_deployment(partial=1)(Front)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(front=Front.bind(Part.options(expose=False).bind()), part=Part.bind()) as server:
        yield server


def test_other_methods_end_with_unimplemented(server: sdk.testing.Server) -> None:
    client = server.client(UserDefinedServiceSyncClient, application="part", timeout=20)
    assert getattr(client, "__call__")(UserDefinedMessage(name="you")).greeting == "hi you"  # noqa: B004, B009
    for call in (
        lambda: client.Multiplexing(client.Multiplexing.method.request()),
        lambda: list(client.Streaming(UserDefinedMessage())),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_they_do_so_through_handles(server: sdk.testing.Server) -> None:
    client = server.client(ImageClassificationServiceSyncClient, application="front", timeout=20)
    code, details = client.Predict(ImageData()).classes
    assert code == "UNIMPLEMENTED"
    assert details == "Application 'front' has no method 'Streaming' of service 'userdefinedprotos.UserDefinedService'."
