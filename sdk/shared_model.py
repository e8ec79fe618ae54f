"""A model that calls share, for ``@serve.multiplexed``: it ends when the last call that uses it has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

M = TypeVar("M")


class SharedModel(Generic[M]):
    """A model that calls borrow.

    To make room for another model, ``@serve.multiplexed`` calls ``__del__`` of the model that was used least recently,
    in a thread, while calls may use that model; Python calls it again when it collects the object
    (https://docs.ray.io/en/latest/serve/model-multiplexing.html). So return a ``SharedModel`` from the loader, and
    release memory and files in ``close``, not in ``__del__`` of the model: it is called once, when no call uses the
    model any more. Until then a replica has one model more than ``max_num_models_per_replica``.

    Args:
        model: The model.
        close: Ends the model; None if it needs no end.

    Example:
        ::

            @serve.multiplexed(max_num_models_per_replica=2)
            async def get_model(self, model_id: str) -> SharedModel[Model]:
                return SharedModel(Model(model_id), close=Model.close)

            async def Translate(self, request: Text) -> Translation:
                async with await self.get_model(serve.get_multiplexed_model_id()) as model:
                    return Translation(text=await model.translate(request.text))
    """

    def __init__(self, model: M, close: Callable[[M], object] | None = None) -> None:
        self._model: M = model
        self._close = close
        self._lock = threading.RLock()  # the garbage collector may call __del__ at any point of this thread
        self._calls = 0
        self._is_evicted = False

    def __enter__(self) -> M:
        """Borrow the model until the end of the block.

        Raises:
            RuntimeError: It is closed, because it was evicted before: load it again.
        """
        with self._lock:
            if self._is_evicted and not self._calls:
                raise RuntimeError(f"{self._model!r} was evicted before this call used it: load it again")
            self._calls += 1
        return self._model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._give_back():
            self._end()

    async def __aenter__(self) -> M:
        """Borrow the model until the end of the block; ``close`` then runs in a thread, and does not block the loop.

        Raises:
            RuntimeError: It is closed, because it was evicted before: load it again.
        """
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._give_back():
            # Shielded: the model must end even if the call is cancelled meanwhile.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._end))

    def __del__(self) -> None:
        """Evict the model: called by Ray Serve, and by Python when nothing refers to it any more."""
        with self._lock:
            is_first, self._is_evicted = not self._is_evicted, True
            is_last = is_first and not self._calls
        if is_last:
            self._end()

    def _give_back(self) -> bool:
        """Count one call less; return True if it was the last one of an evicted model."""
        with self._lock:
            self._calls -= 1
            return self._is_evicted and not self._calls

    def _end(self) -> None:
        if self._close is not None:
            self._close(self._model)
