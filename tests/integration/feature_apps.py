"""Deployments that use Ray Serve's features for requests. A separate module, because replicas import it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.util import get_current_placement_group
from user_defined_protos_pb2 import (
    ImageClass,
    ImageData,
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)
from user_defined_protos_sdk import (
    ImageClassificationServiceBase,
    UserDefinedServiceBase,
    UserDefinedServiceHandle,
)

from sdk import current_context, grpc_deployment

FAST = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 5, "health_check_period_s": 0.2}
logger = logging.getLogger("ray.serve")


class Model:
    """Records where it is loaded and unloaded."""

    def __init__(self, model_id: str, notes: Path) -> None:
        self.id, self._notes = model_id, notes
        self._is_loaded = True
        note(notes, f"loaded {model_id}")

    def __del__(self) -> None:
        # Ray Serve calls it to unload the model, and Python when the object is collected.
        if self._is_loaded:
            self._is_loaded = False
            note(self._notes, f"unloaded {self.id}")


def note(notes: Path, line: str) -> None:
    with (notes / "notes").open("a") as file:
        file.write(line + "\n")


@grpc_deployment(max_ongoing_requests=50, **FAST)
class Features(UserDefinedServiceBase, ImageClassificationServiceBase):
    def __init__(self, notes: str, inner: UserDefinedServiceHandle | None = None) -> None:
        self.notes, self.inner = Path(notes), inner
        self.config: Any = None
        self.health_threads: set[int] = set()
        self.loop_thread = threading.get_ident()

    async def reconfigure(self, config: Any) -> None:
        self.config = config

    def check_health(self) -> None:
        self.health_threads.add(threading.get_ident())

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        result: Any = None
        match request.name:
            case "replica":
                context = serve.get_replica_context()
                result = {"app": context.app_name, "deployment": context.deployment, "tag": context.replica_tag}
            case "config":
                result = self.config
            case "health":
                result = {"threads": len(self.health_threads), "on the loop": self.loop_thread in self.health_threads}
            case "resources":
                group = get_current_placement_group()
                result = {
                    "assigned": ray.get_runtime_context().get_assigned_resources(),
                    "bundles": group.bundle_specs if group else None,
                    "variable": os.environ.get("PROBE"),
                }
            case "log":
                logger.info("said by an async handler")
                result = await asyncio.to_thread(self.log)
            case "fail":
                raise ValueError("said by the server")
            case "handle":
                handle = serve.get_deployment_handle("Features", "features").options(method_name="seen")
                result = [await handle.remote(), await handle.options(multiplexed_model_id="m7").remote()]
            case "typed handle" if self.inner is not None:
                reply = await self.inner(UserDefinedMessage(name=request.origin))
                result = {"pid": reply.num, "transport": reply.greeting}
        return UserDefinedResponse(greeting=json.dumps(result), num=os.getpid())

    async def seen(self) -> dict[str, str]:
        """Return the request context of a call through a handle of Ray Serve."""
        context = serve.context._get_serve_request_context()
        return {
            "request_id": context.request_id,
            "app": context.app_name,
            "model": serve.get_multiplexed_model_id(),
        }

    def log(self) -> str:
        """Log from a thread that the handler started, and return the path of the log file."""
        logger.info("said by a thread")
        (file,) = {h.target.baseFilename for h in logger.handlers if hasattr(h, "target")}
        return str(file)

    @serve.multiplexed(max_num_models_per_replica=2)
    async def get_model(self, model_id: str) -> Model:
        return Model(model_id, self.notes)

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2(greeting=(await self.get_model(serve.get_multiplexed_model_id())).id)

    def Streaming(self, request: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        logger.info("said by a sync stream")
        yield UserDefinedResponse(greeting=serve.get_multiplexed_model_id())

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.1)
    async def Predict(self, requests: list[ImageData]) -> list[ImageClass]:
        contexts = serve.context._get_serve_batch_request_context()
        assert len(contexts) == len(requests)
        if any(request.url == "wrong" for request in requests):
            raise ValueError("a wrong url")
        return [
            ImageClass(classes=[request.url, context.request_id, str(len(requests))])
            for request, context in zip(requests, contexts, strict=True)
        ]


def declared(args: dict[str, str]) -> Any:
    """Build an application for a Serve config file."""
    inner = AsyncPatient.options(name="Inner", expose=False)
    return Features.bind(args["notes"], inner=inner.bind(args["notes"]))


class Patient(UserDefinedServiceBase):
    """Returns its process id and how the call came, and fails its health check on request."""

    def __init__(self, notes: str) -> None:
        self.notes = Path(notes)
        self.is_ill = False

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        self.is_ill = self.is_ill or request.name == "fall ill"
        context: Any = current_context()
        return UserDefinedResponse(num=os.getpid(), greeting=type(context._call.transport).__name__)

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2(greeting=current_context().request_id())

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        yield UserDefinedResponse()


@grpc_deployment(**FAST)
class AsyncPatient(Patient):
    async def check_health(self) -> None:
        if self.is_ill:
            raise RuntimeError("ill")

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        note(self.notes, "async del")


@grpc_deployment(**FAST)
class SyncPatient(Patient):
    def check_health(self) -> None:
        if self.is_ill:
            raise RuntimeError("ill")

    def __del__(self) -> None:
        note(self.notes, "sync del")
