"""Fake of Ray Serve's handle: runs the called method as a task, with pickled arguments."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
from typing import Any


class LocalHandle:
    def __init__(self, instance: Any, method: str = "__call__", stream: bool = False, model_id: str = "") -> None:
        self.instance, self.method, self.stream, self.model_id = instance, method, stream, model_id
        self.sent: list[LocalHandle] = []

    def options(self, method_name: str = "", stream: bool | None = None, multiplexed_model_id: str = "") -> LocalHandle:
        stream = self.stream if stream is None else stream
        changed = LocalHandle(self.instance, method_name or self.method, stream, multiplexed_model_id or self.model_id)
        changed.sent = self.sent
        return changed

    def remote(self, *args: Any) -> Any:
        self.sent.append(self)
        answer = getattr(self.instance, self.method)(*pickle.loads(pickle.dumps(args)))
        return Stream(answer) if self.stream else Response(answer)


class Response:
    def __init__(self, answer: Any) -> None:
        self.is_cancelled = False
        # As in another process: without the caller's context variables.
        self.task = contextvars.Context().run(asyncio.get_running_loop().create_task, answer)

    def __await__(self) -> Any:
        return asyncio.shield(self.task).__await__()

    def cancel(self) -> None:
        self.is_cancelled = True
        self.task.cancel()


class Stream:
    def __init__(self, answer: Any) -> None:
        self.is_cancelled = False
        self.answer = answer

    async def __anext__(self) -> Any:
        return await contextvars.Context().run(asyncio.get_running_loop().create_task, self.answer.__anext__())

    def cancel(self) -> None:
        self.is_cancelled = True
        contextvars.Context().run(asyncio.get_running_loop().create_task, self.answer.aclose())
