"""The service with one model, and what it shares with a repository of models."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import grpc

from sdk.errors import DefinitionError, Problem, RpcError
from sdk.inference._protocol import open_inference_pb2 as pb
from sdk.inference._protocol.open_inference_sdk import GRPCInferenceServiceBase
from sdk.inference._tensors import Arrays, Tensor, read_inputs, requested_outputs, write_outputs

if TYPE_CHECKING:
    from sdk.service import RequestStream

# Parameters of Triton for streams: with the first one, a request asks for an empty last response that marks the end.
_WANTS_FINAL = "triton_enable_empty_final_response"
_IS_FINAL = "triton_final_response"


class Model(Protocol):
    """A model: its signature, and one inference. Any object with these is one."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The inputs, in the order in which clients see them."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """The outputs."""

    def infer(self, inputs: Arrays, /) -> Arrays | Awaitable[Arrays]:
        """Run one inference. A plain function runs in one of ``max_ongoing_requests`` threads.

        Args:
            inputs: The arrays of the request, with the declared types and shapes. They may be read-only. An optional
                input that the request leaves out is missing.

        Returns:
            The arrays of all outputs.
        """


class InferenceServer(GRPCInferenceServiceBase):
    """Parent of every service of the protocol; its subclasses find the models."""

    #: Name of the server in its metadata.
    server_name: ClassVar[str] = "ray-grpc-sdk"
    #: Name of the framework, such as ``"onnxruntime_onnx"``, in the metadata of each model.
    platform: ClassVar[str] = "python"

    def _borrow(self, name: str, version: str) -> AbstractAsyncContextManager[Model]:
        """Let one call use a model.

        Args:
            name: Name of the model.
            version: Its version; empty for the newest.

        Raises:
            RpcError: NOT_FOUND: there is no such model.
        """
        raise NotImplementedError

    def _versions(self, name: str) -> Sequence[str]:
        """Return the versions of a model, the newest last.

        Raises:
            RpcError: NOT_FOUND: there is no such model.
        """
        raise NotImplementedError

    def _index(self) -> list[tuple[str, str, bool]]:
        """Return name, version and readiness of each model."""
        raise NotImplementedError

    def _resolve(self, name: str, version: str) -> str:
        versions = self._versions(name)
        if not version:
            return versions[-1]
        if version not in versions:
            raise RpcError(
                grpc.StatusCode.NOT_FOUND, f"Model {name!r} has no version {version!r}; it has {', '.join(versions)}."
            )
        return version

    async def ServerLive(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Return true: the replica answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Return true: calls reach a replica only when its constructor has returned."""
        return pb.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Return whether a model is ready; false for one that does not exist."""
        ready = (
            name == request.name and ready and request.version in ("", version)
            for name, version, ready in self._index()
        )
        return pb.ModelReadyResponse(ready=any(ready))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Return name, version and extensions."""
        return pb.ServerMetadataResponse(
            name=self.server_name,
            version=version("ray-grpc-sdk"),
            extensions=["model_repository"],
        )

    async def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Return the signature of a model, which is loaded for it."""
        versions = self._versions(request.name)
        version = self._resolve(request.name, request.version)
        async with self._borrow(request.name, version) as model:
            return pb.ModelMetadataResponse(
                name=request.name,
                versions=versions,
                platform=self.platform,
                inputs=map(_metadata, model.inputs),
                outputs=map(_metadata, model.outputs),
            )

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Run one inference."""
        version = self._resolve(request.model_name, request.model_version)
        async with self._borrow(request.model_name, version) as model:
            inputs, wanted = read_inputs(request, model), requested_outputs(request, model)
            return _response(request, version, await _infer(model, inputs), wanted)

    async def ModelStreamInfer(
        self, requests: RequestStream[pb.ModelInferRequest]
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Run inferences one after another. One that fails has an error message, and the stream continues."""
        async for request in requests:
            try:
                async for response in self._responses(request):
                    yield pb.ModelStreamInferResponse(infer_response=response)
            except RpcError as error:
                failed = pb.ModelInferResponse(id=request.id)
                yield pb.ModelStreamInferResponse(
                    error_message=f"{error.code.name}: {error.details}", infer_response=failed
                )

    async def _responses(self, request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferResponse]:
        version = self._resolve(request.model_name, request.model_version)
        wants_final = request.parameters[_WANTS_FINAL].bool_param if _WANTS_FINAL in request.parameters else False
        async with self._borrow(request.model_name, version) as model:
            inputs, wanted = read_inputs(request, model), requested_outputs(request, model)
            stream = getattr(model, "infer_stream", None)
            if stream is None:
                response = _response(request, version, await _infer(model, inputs), wanted)
                if wants_final:
                    response.parameters[_IS_FINAL].bool_param = True
                yield response
                return
            async for arrays in stream(inputs):
                response = _response(request, version, arrays, wanted)
                if wants_final:
                    response.parameters[_IS_FINAL].bool_param = False
                yield response
            if wants_final:
                response = _response(request, version)
                response.parameters[_IS_FINAL].bool_param = True
                yield response

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List the models."""
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=name, version=version, state="READY" if ready else "UNAVAILABLE"
                )
                for name, version, ready in self._index()
                if ready or not request.ready
            ]
        )

    async def RepositoryModelLoad(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load the newest version of a model in this replica."""
        name = model_name(request)
        async with self._borrow(name, self._resolve(name, "")):
            return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Unload every version of a model in this replica."""
        raise NotImplementedError


class InferenceService(InferenceServer):
    """A service with one model, which the class itself is.

    Set ``inputs`` and ``outputs``, in the class or in the constructor, and write ``infer``. With ``infer_stream``, an
    async generator of arrays, a request of a stream has any number of responses; without it, it has that of ``infer``.
    ``@serve.batch`` on ``infer`` gives it a list of the arrays of several calls, and takes a list.

    A request that does not fit the signature ends INVALID_ARGUMENT, before ``infer`` is called. An exception of
    ``infer``, or arrays that do not fit, end the call INTERNAL.

    Example:
        ::

            @grpc_deployment
            class Lengths(InferenceService):
                inputs = (Tensor("text", "BYTES", (-1,)),)
                outputs = (Tensor("length", "INT64", (-1,)),)

                def infer(self, inputs: Arrays) -> Arrays:
                    return {"length": np.array([len(text) for text in inputs["text"]])}
    """

    #: Name of the model for clients; by default that of the class in lower case.
    model_name: ClassVar[str] = ""
    #: Its version.
    model_version: ClassVar[str] = "1"
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        problems = [problem for name in ("inputs", "outputs") for problem in _tensor_problems(cls, name)]
        if problems:
            raise DefinitionError(cls.__name__, problems)

    @property
    def _name(self) -> str:
        # Read late: the class of a replica gets the name of the user's class when it has been made.
        return self.model_name or type(self).__name__.lower()

    def infer(self, inputs: Any, /) -> Any:
        """Run one inference; see :meth:`Model.infer`. Write it ``async def`` to stay on the event loop."""
        raise NotImplementedError(f"{type(self).__name__} has no method infer")

    def _borrow(self, name: str, version: str) -> AbstractAsyncContextManager[Model]:
        return nullcontext(self)

    def _versions(self, name: str) -> Sequence[str]:
        if name != self._name:
            raise not_found(name, [self._name])
        return (self.model_version,)

    def _index(self) -> list[tuple[str, str, bool]]:
        return [(self._name, self.model_version, True)]

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Refuse it: the model lives as long as its replica."""
        self._versions(model_name(request))
        raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, f"Model {self._name!r} can't be unloaded.")


def model_name(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """Return the model that a request of the repository names: KServe's clients have its name in field 1."""
    return request.model_name or request.repository_name


def not_found(name: str, names: Sequence[str]) -> RpcError:
    """Return the error for a model that does not exist."""
    there = ", ".join(map(repr, names)) or "none"
    return RpcError(grpc.StatusCode.NOT_FOUND, f"Model {name!r} not found; there is {there}.")


async def _infer(model: Model, inputs: Arrays) -> object:
    if inspect.iscoroutinefunction(model.infer):
        return await model.infer(inputs)
    from sdk._wire.threads import run_in_handler_thread  # late: clients import this package, and have no wire server

    found = await run_in_handler_thread(lambda: model.infer(inputs))
    return await found if inspect.isawaitable(found) else found


def _is_raw(request: pb.ModelInferRequest) -> bool:
    """Return whether the response is raw too: a client that sends raw bytes can read them."""
    return bool(request.raw_input_contents) or not request.inputs


def _response(
    request: pb.ModelInferRequest, version: str, arrays: object = None, wanted: Sequence[Tensor] | None = None
) -> pb.ModelInferResponse:
    """Return the response with the wanted outputs; without them it is empty."""
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    if wanted is not None:
        write_outputs(response, arrays, wanted, raw=_is_raw(request))
    return response


def _metadata(tensor: Tensor) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _tensor_problems(cls: type, name: str) -> Iterator[Problem]:
    declared = cls.__dict__.get(name)
    if declared is None or isinstance(declared, property):
        return  # in the constructor, or in a base class
    if not isinstance(declared, (tuple, list)) or not all(isinstance(tensor, Tensor) for tensor in declared):
        message, remedy = f"`{name}` is not a sequence of Tensor", f'write `{name} = (Tensor("x", "FP32", (-1,)),)`'
        yield Problem("tensor", f"{cls.__name__}.{name}", message, remedy)
        return
    names = [tensor.name for tensor in declared]
    for twice in sorted({found for found in names if names.count(found) > 1}):
        yield Problem("tensor", f"{cls.__name__}.{name}", f"two tensors are named {twice!r}", "rename one")
