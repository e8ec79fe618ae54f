"""A model that calls share: it ends once, after its last call."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from sdk import SharedModel


class Model:
    def __init__(self) -> None:
        self.closed_in: list[str] = []

    def close(self) -> None:
        self.closed_in.append(threading.current_thread().name)


@pytest.fixture
def model() -> Model:
    return Model()


def test_an_evicted_model_that_no_call_uses_is_closed_once(model: Model) -> None:
    shared = SharedModel(model, close=Model.close)
    with shared as borrowed:
        assert borrowed is model
    assert model.closed_in == []
    shared.__del__()  # as Ray Serve does
    del shared
    gc.collect()
    assert len(model.closed_in) == 1


def test_an_evicted_model_is_closed_after_its_last_call(model: Model) -> None:
    shared = SharedModel(model, close=Model.close)
    with shared:
        with shared:
            shared.__del__()
        assert model.closed_in == []
    assert len(model.closed_in) == 1


def test_a_closed_model_can_not_be_borrowed(model: Model) -> None:
    shared = SharedModel(model)
    shared.__del__()
    with pytest.raises(RuntimeError, match="was evicted before this call used it: load it again"), shared:
        pass


def test_a_call_that_fails_gives_the_model_back(model: Model) -> None:
    shared = SharedModel(model, close=Model.close)

    def fail() -> None:
        with shared:
            shared.__del__()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert len(model.closed_in) == 1


async def test_an_async_call_closes_the_model_in_a_thread(model: Model) -> None:
    shared = SharedModel(model, close=Model.close)
    async with shared as borrowed:
        assert borrowed is model
        shared.__del__()
    (thread,) = model.closed_in
    assert thread != threading.current_thread().name


async def test_a_cancelled_call_closes_the_model_all_the_same() -> None:
    closing, may_close, closed = threading.Event(), threading.Event(), threading.Event()

    def close(_: Model) -> None:
        closing.set()
        may_close.wait(30)
        closed.set()

    async def call() -> None:
        shared = SharedModel(Model(), close)
        async with shared:
            shared.__del__()

    task = asyncio.create_task(call())
    await asyncio.to_thread(closing.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_close.set()
    assert await asyncio.to_thread(closed.wait, 30)
