"""The decorator's options `compression` and `interceptors`: they reach the replica, or are refused at once."""

from __future__ import annotations

import enum
from typing import Any

import grpc
import grpc.aio
import pytest
from ray import serve
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import ApplicationError, DefinitionError, OptionsError, grpc_deployment
from sdk._contract.definition import definition_of
from sdk._contract.interceptors import make_interceptors


class Classifier(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


def test_the_definition_has_the_compression() -> None:
    definition = definition_of(grpc_deployment(compression=grpc.Compression.Deflate)(Classifier))
    assert definition is not None
    assert definition.compression is grpc.Compression.Deflate
    assert not definition.options


def test_an_invalid_compression_is_refused() -> None:
    with pytest.raises(
        OptionsError, match=r"^Classifier: compression must be a member of grpc\.Compression, not 'gzip'"
    ):
        grpc_deployment(compression="gzip")(Classifier)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("decorated", "message"),
    [
        (Classifier(), "@grpc_deployment is for a class, not for the Classifier <.*>; options have names: "),
        (len, "@grpc_deployment is for a class, not for the builtin_function_or_method len; options have names: "),
        (2, r"@grpc_deployment is for a class, not for the int 2; options have names: .*\(num_replicas=2\)$"),
        (
            serve.deployment(Classifier),
            "Classifier: @grpc_deployment takes the place of @serve.deployment: remove that, ",
        ),
    ],
)
def test_only_a_class_can_be_decorated(decorated: Any, message: str) -> None:
    for decorator in (grpc_deployment, grpc_deployment(num_replicas=1)):
        with pytest.raises(OptionsError, match=f"^{message}"):
            decorator(decorated)


class Kind(ImageClassificationServiceBase, enum.Enum):
    ONE = 1

    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


def test_a_class_that_can_not_have_subclasses_is_refused() -> None:
    with pytest.raises(ApplicationError, match=r"^Kind: a replica is an object of a subclass of it, .*cannot extend"):
        grpc_deployment(Kind).bind()


def test_the_class_of_a_replica_is_not_announced() -> None:
    announced: list[type] = []

    class Plugin(ImageClassificationServiceBase):
        def __init_subclass__(cls, *, key: str) -> None:
            announced.append(cls)

    class Mine(Plugin, key="mine"):
        async def Predict(self, request: ImageData) -> ImageClass:
            return ImageClass()

    grpc_deployment(Mine).bind()
    assert announced == [Mine]


class Good(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await continuation(handler_call_details)


class Sync(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return continuation(handler_call_details)


def test_each_replica_calls_the_callables() -> None:
    good = Good()
    definition = definition_of(grpc_deployment(interceptors=[good, Good, lambda: Good()])(Classifier))
    assert definition is not None
    first, second = (make_interceptors("Classifier", definition.interceptors) for _ in range(2))
    assert first[0] is second[0] is good
    assert len({id(interceptor) for interceptor in (*first, *second)}) == 5
    assert {type(interceptor) for interceptor in first} == {Good}


SYNC = "Sync is a grpc.ServerInterceptor, which would block the event loop of all calls"


@pytest.mark.parametrize(
    ("interceptors", "says"),
    [
        ([Good(), Sync()], rf"interceptors\[1\]: {SYNC} → derive it from grpc.aio.ServerInterceptor"),
        ([Sync], SYNC),
        (
            ["text"],
            r"interceptors\[0\]: 'text' is not an interceptor → give a grpc.aio.ServerInterceptor, or a callable",
        ),
        (Good(), r"interceptors must be a list, not Good → write `interceptors=\[...\]`"),
        ([Sync(), None], "2 problems"),
    ],
)
def test_an_invalid_interceptor_is_refused_when_the_class_is_decorated(interceptors: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        grpc_deployment(interceptors=interceptors)(Classifier)


@pytest.mark.parametrize(
    ("made", "says"), [(Sync(), SYNC), (None, "None is not an interceptor"), (Good, "not an interceptor")]
)
def test_an_invalid_interceptor_made_by_a_callable_is_refused_in_the_replica(made: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        make_interceptors("Classifier", [lambda: made])
