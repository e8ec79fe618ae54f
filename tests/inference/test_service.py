"""Services of the Open Inference Protocol, served in this process behind a real Envoy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from ray import serve

import sdk.testing
from sdk import grpc_deployment
from sdk.errors import DefinitionError
from sdk.inference import (
    Arrays,
    GRPCInferenceServiceSyncClient,
    InferenceRepository,
    InferenceService,
    Model,
    Tensor,
)
from sdk.inference._protocol import open_inference_pb2 as pb
from tests.support.deadlines import wait_until

X, Y = Tensor("x", "FP32", (-1,)), Tensor("y", "FP32", (-1,))


@grpc_deployment
class Doubler(InferenceService):
    inputs, outputs = (X,), (Y,)

    def infer(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] * 2}


@grpc_deployment
class Counter(InferenceService):
    """Counts down from each number, one response a step."""

    model_name, model_version = "counter", "7"
    inputs, outputs = (X,), (Y,)

    async def infer(self, inputs: Arrays) -> Arrays:
        if inputs["x"][0] < 0:
            raise ValueError("negative")
        return {"y": inputs["x"]} if inputs["x"][0] else {}

    async def infer_stream(self, inputs: Arrays) -> AsyncIterator[Arrays]:
        if inputs["x"][0] > 100:
            raise sdk.RpcError(grpc.StatusCode.OUT_OF_RANGE, "at most 100")
        for number in range(int(inputs["x"][0]), 0, -1):
            yield {"y": np.array([number], "f4")}
        if inputs["x"][0] < 0:
            raise ValueError("negative")


@grpc_deployment(max_ongoing_requests=64)
class Batched(InferenceService):
    inputs, outputs = (X,), (Y, Tensor("size", "INT32", ()))

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=10)
    async def infer(self, inputs: list[Arrays]) -> list[Arrays]:
        return [{"y": arrays["x"], "size": np.array(len(inputs), "i4")} for arrays in inputs]


class Times:
    inputs, outputs = (X,), (Y,)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def infer(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] * np.float32(self.factor)}


@grpc_deployment
class Zoo(InferenceRepository):
    max_models = 2

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.unloaded: list[float] = []
        self.slow = threading.Event()

    def models(self) -> dict[str, Sequence[str]]:
        return {"two": ["1", "2"], "three": ["1"], "four": ["1"], "broken": ["1"], "slow": ["1"]}

    async def load(self, name: str, version: str) -> Model:
        self.loaded.append(f"{name}/{version}")
        if name == "broken":
            raise OSError("no such file")
        if name == "slow":
            await asyncio.to_thread(self.slow.wait, 20)
        return Times({"two": 2, "three": 3, "four": 4, "slow": 5}[name] * (10 if version == "2" else 1))

    def unload(self, model: Model) -> None:
        assert isinstance(model, Times)
        self.unloaded.append(model.factor)


@contextmanager
def served(application: Any) -> Iterator[tuple[sdk.testing.Server, GRPCInferenceServiceSyncClient]]:
    with sdk.testing.serve(application) as server:
        yield server, server.client(GRPCInferenceServiceSyncClient)


def infer_request(model: str, *values: float, raw: bool = False, **fields: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[len(values)])
    if not raw:
        tensor.contents.fp32_contents.extend(values)
    request = pb.ModelInferRequest(model_name=model, inputs=[tensor], **fields)
    if raw:
        request.raw_input_contents.append(np.array(values, "<f4").tobytes())
    return request


def begin(client: GRPCInferenceServiceSyncClient, request: pb.ModelInferRequest) -> Any:
    """Start a call, and return its future."""
    stub = client.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    return stub.future(request)


def y_of(response: pb.ModelInferResponse) -> list[float]:
    return list(response.outputs[0].contents.fp32_contents)


def status_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code(), error.details()


def test_a_service_with_one_model() -> None:
    with served(Doubler.bind()) as (_, client):
        assert client.ServerLive(pb.ServerLiveRequest()).live
        assert client.ServerReady(pb.ServerReadyRequest()).ready
        assert client.ModelReady(pb.ModelReadyRequest(name="doubler")).ready
        assert client.ModelReady(pb.ModelReadyRequest(name="doubler", version="1")).ready
        assert not client.ModelReady(pb.ModelReadyRequest(name="doubler", version="2")).ready
        assert not client.ModelReady(pb.ModelReadyRequest(name="other")).ready
        server = client.ServerMetadata(pb.ServerMetadataRequest())
        assert (server.name, list(server.extensions)) == ("ray-grpc-sdk", ["model_repository"])
        model = client.ModelMetadata(pb.ModelMetadataRequest(name="doubler"))
        assert (model.name, list(model.versions), model.platform) == ("doubler", ["1"], "python")
        (given,), (returned,) = model.inputs, model.outputs
        assert (given.name, given.datatype, list(given.shape)) == ("x", "FP32", [-1])
        assert returned.name == "y"

        response = client.ModelInfer(infer_request("doubler", 1, 2.5, id="a"))
        assert (response.model_name, response.model_version, response.id) == ("doubler", "1", "a")
        assert y_of(response) == [2, 5]
        response = client.ModelInfer(infer_request("doubler", 1, 2.5, raw=True))
        assert response.raw_output_contents == [np.array([2, 5], "<f4").tobytes()]
        assert list(response.outputs[0].shape) == [2]

        index = client.RepositoryIndex(pb.RepositoryIndexRequest())
        assert [(model.name, model.version, model.state) for model in index.models] == [("doubler", "1", "READY")]
        assert client.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="doubler")).isLoaded


def test_errors_of_a_service_with_one_model() -> None:
    code = grpc.StatusCode
    with served(Counter.bind()) as (_, client):
        missing = "Model 'other' not found; there is 'counter'."
        assert status_of(lambda: client.ModelInfer(infer_request("other"))) == (code.NOT_FOUND, missing)
        assert status_of(lambda: client.ModelMetadata(pb.ModelMetadataRequest(name="other")))[0] is code.NOT_FOUND
        assert status_of(lambda: client.ModelInfer(infer_request("counter", 1, model_version="1"))) == (
            code.NOT_FOUND,
            "Model 'counter' has no version '1'; it has 7.",
        )
        assert status_of(lambda: client.ModelInfer(pb.ModelInferRequest(model_name="counter"))) == (
            code.INVALID_ARGUMENT,
            "missing: input 'x'",
        )
        for values, text in ((-1, "ValueError: negative"), (0, "infer returned no output 'y'")):
            ended, details = status_of(lambda value=values: client.ModelInfer(infer_request("counter", value)))
            assert ended is code.INTERNAL
            assert text in details
        unload = pb.RepositoryModelUnloadRequest(model_name="counter")
        assert status_of(lambda: client.RepositoryModelUnload(unload))[0] is code.FAILED_PRECONDITION


def test_streams() -> None:
    with served(Counter.bind()) as (_, client):
        final = {"triton_enable_empty_final_response": pb.InferParameter(bool_param=True)}
        requests = [
            infer_request("counter", 2, id="a"),
            infer_request("other", id="b"),
            infer_request("counter", 1, id="c", parameters=final),
        ]
        responses = list(client.ModelStreamInfer(requests))
        assert [response.infer_response.id for response in responses] == ["a", "a", "b", "c", "c"]
        assert [y_of(responses[i].infer_response) for i in (0, 1, 3)] == [[2], [1], [1]]
        assert responses[2].error_message == "NOT_FOUND: Model 'other' not found; there is 'counter'."
        is_final = [r.infer_response.parameters["triton_final_response"].bool_param for r in responses[3:]]
        assert is_final == [False, True]
        assert not responses[4].infer_response.outputs
    with served(Doubler.bind()) as (_, client):
        (response,) = client.ModelStreamInfer([infer_request("doubler", 4, parameters=final)])
        assert y_of(response.infer_response) == [8]
        assert response.infer_response.parameters["triton_final_response"].bool_param


def test_which_errors_end_a_stream() -> None:
    """As docs/guides/inference.md says: none but INTERNAL."""
    with served(Counter.bind()) as (_, client):
        requests = [infer_request("counter", value, id=str(value)) for value in (101, 1, -1, 2)]
        call = client.ModelStreamInfer(requests)
        too_large, one = next(call), next(call)
        assert (too_large.infer_response.id, too_large.error_message) == ("101", "OUT_OF_RANGE: at most 100")
        assert (one.infer_response.id, one.error_message) == ("1", "")
        ended, details = status_of(lambda: next(call))
        assert ended is grpc.StatusCode.INTERNAL
        assert "ValueError: negative" in details


def test_calls_that_arrive_together_are_one_batch() -> None:
    with served(Batched.bind()) as (_, client):
        calls = [begin(client, infer_request("batched", i)) for i in range(4)]
        responses = [call.result(timeout=20) for call in calls]
    assert [y_of(response) for response in responses] == [[0], [1], [2], [3]]
    assert {tuple(response.outputs[1].contents.int_contents) for response in responses} == {(4,)}


# More calls at once than the default executor of a loop has threads, on any machine.
AT_ONCE = 40


@grpc_deployment(max_ongoing_requests=AT_ONCE)
class Together(InferenceService):
    """Answers when all calls have arrived."""

    inputs, outputs = (X,), (Y,)

    def __init__(self) -> None:
        self.barrier = threading.Barrier(AT_ONCE)

    def infer(self, inputs: Arrays) -> Arrays:
        self.barrier.wait(20)
        return {"y": inputs["x"]}


def test_as_many_plain_functions_run_at_once_as_the_deployment_allows() -> None:
    with served(Together.bind()) as (_, client):
        calls = [begin(client, infer_request("together", i)) for i in range(AT_ONCE)]
        assert [y_of(call.result(timeout=40)) for call in calls] == [[i] for i in range(AT_ONCE)]


def test_a_model_can_be_called_without_any_server() -> None:
    async def infer() -> list[float]:
        return y_of(await Doubler().ModelInfer(infer_request("doubler", 3)))

    assert asyncio.run(infer()) == [6]


def test_a_repository_loads_what_is_called_and_keeps_the_last() -> None:
    with served(Zoo.bind()) as (server, client):
        zoo = server.instance(Zoo)

        def infer(name: str, version: str = "") -> list[float]:
            return y_of(client.ModelInfer(infer_request(name, 1, model_version=version)))

        assert (infer("two"), infer("two", "1"), infer("two")) == ([20], [2], [20])
        assert zoo.loaded == ["two/2", "two/1"]
        assert infer("three") == [3]
        wait_until(lambda: zoo.unloaded == [2])
        client.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="four"))  # as KServe's clients do
        wait_until(lambda: zoo.unloaded == [2, 20])
        assert client.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="three")).isUnloaded
        wait_until(lambda: zoo.unloaded == [2, 20, 3])
        assert zoo.loaded == ["two/2", "two/1", "three/1", "four/1"]
        assert infer("three") == [3]
        models = client.RepositoryIndex(pb.RepositoryIndexRequest()).models
        assert [model.name for model in models] == ["two", "two", "three", "four", "broken", "slow"]


def test_calls_share_a_load_and_a_failed_one_is_tried_again() -> None:
    with served(Zoo.bind()) as (server, client):
        zoo = server.instance(Zoo)
        for _ in range(2):
            ended, details = status_of(lambda: client.ModelInfer(infer_request("broken", 1)))
            assert (ended, "OSError: no such file" in details) == (grpc.StatusCode.INTERNAL, True)
        assert zoo.loaded == ["broken/1"] * 2
        calls = [begin(client, infer_request("slow", 1)) for _ in range(3)]
        wait_until(lambda: "slow/1" in zoo.loaded)
        calls[0].cancel()
        zoo.slow.set()
        assert [y_of(call.result(timeout=20)) for call in calls[1:]] == [[5], [5]]
        assert zoo.loaded.count("slow/1") == 1


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ("x", "`inputs` is not a sequence of Tensor"),
        ((X, Tensor("x", "BOOL", (1,))), "two tensors are named 'x'"),
    ],
)
def test_a_signature_that_is_wrong(tensors: Any, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        type("Wrong", (InferenceService,), {"inputs": tensors, "outputs": (Y,)})


def test_messages_do_not_clash_with_those_of_other_packages() -> None:
    pool = pb.DESCRIPTOR.pool
    from google.protobuf import descriptor_pool

    assert pool is not descriptor_pool.Default()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
