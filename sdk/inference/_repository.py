"""The service with several models, which are loaded when they are needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar

from sdk.inference._protocol import open_inference_pb2 as pb
from sdk.inference._service import InferenceServer, Model, model_name, not_found
from sdk.shared_model import SharedModel


class InferenceRepository(InferenceServer):
    """A service with several models and versions.

    Each replica loads a model at its first call, and keeps up to ``max_models``. To make room it drops the one that was
    used least recently; a call that still uses it may finish. Clients that send the metadata ``multiplexed_model_id``
    reach a replica that has the model loaded; others may load it in every replica.

    Example:
        ::

            @grpc_deployment
            class Translators(InferenceRepository):
                max_models = 2

                def models(self) -> dict[str, Sequence[str]]:
                    return {"de": ["1", "2"], "fr": ["1"]}

                async def load(self, name: str, version: str) -> Model:
                    return await asyncio.to_thread(Translator, f"/models/{name}/{version}")
    """

    #: Most models that a replica keeps.
    max_models: ClassVar[int] = 3

    def models(self) -> Mapping[str, Sequence[str]]:
        """Return the models and their versions, the newest version last. It is called for each request."""
        raise NotImplementedError(f"{type(self).__name__} has no method models")

    async def load(self, name: str, version: str) -> Model:
        """Return a model that is ready. It runs once for several calls that arrive meanwhile.

        Args:
            name: Its name, one of :meth:`models`.
            version: Its version.

        Raises:
            Exception: It can't be loaded: the calls that wait for it end with the exception.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method load")

    def unload(self, model: Model) -> None:
        """Release what a model holds, when no call uses it any more. It runs in a thread."""

    @property
    def _loaded(self) -> OrderedDict[tuple[str, str], asyncio.Task[SharedModel[Model]]]:
        # Not in a constructor, which subclasses would have to call.
        loaded: OrderedDict[tuple[str, str], asyncio.Task[SharedModel[Model]]]
        loaded = self.__dict__.setdefault("_loaded_models", OrderedDict())
        return loaded

    @asynccontextmanager
    async def _borrow(self, name: str, version: str) -> AsyncIterator[Model]:
        while True:
            shared = await self._get(name, version)
            with contextlib.suppress(RuntimeError):  # evicted since: load it again
                model = shared.__enter__()
                break
        try:
            yield model
        finally:
            await shared.__aexit__(None, None, None)

    async def _get(self, name: str, version: str) -> SharedModel[Model]:
        key, loaded = (name, version), self._loaded
        task = loaded.get(key)
        if task is None:
            task = loaded[key] = asyncio.ensure_future(self._load(name, version))
            task.add_done_callback(partial(self._forget_failed, key))
        loaded.move_to_end(key)
        model = await asyncio.shield(task)  # other calls wait for the same model
        while len(loaded) > self.max_models:
            _evict(loaded.popitem(last=False)[1])
        return model

    def _forget_failed(self, key: tuple[str, str], task: asyncio.Task[SharedModel[Model]]) -> None:
        """Let the next call try again to load a model."""
        if (task.cancelled() or task.exception() is not None) and self._loaded.get(key) is task:
            del self._loaded[key]

    async def _load(self, name: str, version: str) -> SharedModel[Model]:
        return SharedModel(await self.load(name, version), close=self.unload)

    def _versions(self, name: str) -> Sequence[str]:
        models = self.models()
        if not models.get(name):
            raise not_found(name, list(models))
        return models[name]

    def _index(self) -> list[tuple[str, str, bool]]:
        return [(name, version, True) for name, versions in self.models().items() for version in versions]

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Drop every version of a model in this replica; the next call loads it again."""
        name = model_name(request)
        for version in self._versions(name):
            if task := self._loaded.pop((name, version), None):
                _evict(task)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


def _evict(task: asyncio.Task[SharedModel[Model]]) -> None:
    """End a model when it is loaded and no call uses it any more, in a thread."""

    def end(task: asyncio.Task[SharedModel[Model]]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.get_loop().run_in_executor(None, task.result().__del__)

    task.add_done_callback(end)
