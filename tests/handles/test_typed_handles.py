"""Typed handles and the side that answers them, without Ray Serve between the two."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle, SyncProbeHandle
from ray import serve
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, RequestCancelledError
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedResponse
from user_defined_protos_sdk import UserDefinedServiceBase, UserDefinedServiceHandle

from sdk.context import current_context, enter_call
from sdk.errors import RpcError
from sdk.handles._base import _await_until
from sdk.handles._call import InnerCall
from tests.support.local_handle import LocalHandle

BAD = BadRequest(field_violations=[BadRequest.FieldViolation(field="name", description="is empty")])


class Callee(AsyncProbeBase):
    """Does what the request says; ``ended`` is set when a waiting call is cancelled."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.yielded = 0

    async def Unary(self, request: Ask, grpc_context: Any) -> Told:
        match request.act:
            case "echo":
                return Told(text=request.note, number=request.number)
            case "seen":
                seen = dict(grpc_context.invocation_metadata())
                seen |= {"id": grpc_context.request_id(), "model": grpc_context.multiplexed_model_id()}
                seen |= {"serve": serve.get_multiplexed_model_id(), "peer": grpc_context.peer()}
                assert current_context() is grpc_context
                return Told(text=repr(seen))
            case "left":
                left = grpc_context.time_remaining()
                return Told(text=repr(left))
            case "wait":
                try:
                    await asyncio.Event().wait()
                finally:
                    self.ended.set()
            case "raise":
                raise RpcError(grpc.StatusCode.NOT_FOUND, "no such", [("k", "v")], errors=[BAD])
            case "abort":
                grpc_context.set_trailing_metadata([("kept", "yes")])
                await grpc_context.abort(grpc.StatusCode.ABORTED, "no")
            case "abort with status":
                status = Status(code=3, message="bad")
                status.details.add().Pack(BAD)
                pairs = [("grpc-status-details-bin", status.SerializeToString())]
                await grpc_context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad", pairs)
            case "swallow":
                with contextlib.suppress(RpcError):
                    await grpc_context.abort(grpc.StatusCode.ABORTED, "swallowed")
            case "code":
                grpc_context.set_code(grpc.StatusCode.OUT_OF_RANGE)
                grpc_context.set_details("too far")
                return None  # type: ignore[return-value]
            case "cancel":
                grpc_context.cancel()
                await asyncio.sleep(10)
            case "fail":
                raise ValueError("a value")
            case "timeout":
                raise TimeoutError("its own")
        return 7  # type: ignore[return-value]

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        try:
            for number in range(request.number):
                self.yielded += 1
                yield Told(number=number, text=current_context().request_id())
                await asyncio.sleep(0)
            if request.act == "wait":
                await asyncio.Event().wait()
            if request.act == "raise":
                raise RpcError(grpc.StatusCode.DATA_LOSS, "half")
        finally:
            self.ended.set()


class PlainCallee(Callee):
    def Unary(self, request: Ask) -> Told:  # type: ignore[override]
        return Told(text=current_context().request_id())

    def Down(self, request: Ask) -> Iterator[Told]:  # type: ignore[override]
        for number in range(request.number):
            yield Told(number=number)


class WritingCallee(Callee):
    async def Down(self, request: Ask, grpc_context: Any) -> None:  # type: ignore[override]
        for number in range(request.number):
            await grpc_context.write(Told(number=number))


@contextlib.contextmanager
def outer_call(*metadata: tuple[str, str], timeout: float | None = None) -> Iterator[None]:
    """Run the block in a client's call."""
    deadline = None if timeout is None else time.monotonic() + timeout
    enter_call(InnerCall("/outer", b"", "r1", metadata, "ipv4:1.2.3.4:5", {}, deadline))
    try:
        yield
    finally:
        enter_call(None)


def handle_to(callee: Callee) -> AsyncProbeHandle:
    return AsyncProbeHandle(LocalHandle(callee))


async def error_of(act: str, **options: Any) -> RpcError:
    with pytest.raises(RpcError) as raised:
        await handle_to(Callee()).Unary(Ask(act=act), **options)
    return raised.value


async def test_unary() -> None:
    handle = handle_to(Callee())
    assert await handle.Unary(Ask(act="echo", note="x", number=7)) == Told(text="x", number=7)
    replies = await asyncio.gather(*(handle.Unary(Ask(act="echo", number=n)) for n in range(9)))
    assert [reply.number for reply in replies] == list(range(9))


@pytest.mark.parametrize("callee", [Callee, PlainCallee, WritingCallee])
async def test_a_stream_of_every_kind_of_handler(callee: type[Callee]) -> None:
    replies = [reply.number async for reply in handle_to(callee()).Down(Ask(number=100))]
    assert replies == list(range(100))


async def test_a_plain_function_runs_in_a_thread_with_its_context() -> None:
    with outer_call():
        assert (await handle_to(PlainCallee()).Unary(Ask())).text == "r1"


async def test_the_clients_metadata_is_forwarded() -> None:
    handle = handle_to(Callee())
    with outer_call(("multiplexed_model_id", "m1"), ("user", "me"), ("application", "a")):
        seen = eval((await handle.Unary(Ask(act="seen"))).text)
    assert seen.pop("id") == "r1"
    assert seen == {
        "multiplexed_model_id": "m1",
        "application": "a",
        "user": "me",
        "model": "m1",
        "serve": "m1",
        "peer": "ipv4:1.2.3.4:5",
    }
    assert [sent.model_id for sent in handle._handle.sent] == [""]


async def test_a_call_may_name_its_model_and_metadata() -> None:
    handle = handle_to(Callee())
    with outer_call(("multiplexed_model_id", "m1"), ("user", "me")):
        seen = eval((await handle.Unary(Ask(act="seen"), model_id="m2", metadata=[("more", "x")])).text)
    assert (seen["model"], seen["user"], seen["more"]) == ("m2", "me", "x")
    assert [sent.model_id for sent in handle._handle.sent] == ["m2"]


async def test_without_an_outer_call_a_request_id_is_generated() -> None:
    seen = eval((await handle_to(Callee()).Unary(Ask(act="seen"))).text)
    assert len(seen["id"]) == 36
    assert seen["model"] is None


async def test_the_shorter_of_both_deadlines_is_forwarded() -> None:
    handle = handle_to(Callee())
    assert (await handle.Unary(Ask(act="left"))).text == "None"
    with outer_call(timeout=50):
        assert 40 < float((await handle.Unary(Ask(act="left"))).text) <= 50
        assert 40 < float((await handle.Unary(Ask(act="left"), timeout=90)).text) <= 50
        assert 5 < float((await handle.Unary(Ask(act="left"), timeout=10)).text) <= 10


async def test_a_deadline_ends_the_handler_too() -> None:
    callee = Callee()
    with pytest.raises(RpcError) as raised:
        await handle_to(callee).Unary(Ask(act="wait"), timeout=0.05)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(callee.ended.wait(), 5)
    stream = handle_to(callee).Down(Ask(act="wait"), timeout=0.05)
    with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
        await anext(stream)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_the_exception_of_an_abandoned_call_is_not_logged(
    is_cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("as Ray Serve's responses do")

    async def test() -> None:
        waiting = asyncio.ensure_future(_await_until(answer(), time.monotonic() + (60 if is_cancelled else 0)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else RpcError):
            await waiting

    await test()
    gc.collect()
    assert caplog.records == []


class Unassigned:
    """Ray Serve's response of a call that waits for a replica: it ends when it is cancelled."""

    def __init__(self) -> None:
        self.is_cancelled = threading.Event()

    def options(self, **_: Any) -> Unassigned:
        return self

    def remote(self, *_: Any) -> Unassigned:
        return self

    def cancel(self) -> None:
        self.is_cancelled.set()

    def __next__(self) -> Any:
        assert self.is_cancelled.wait(10)
        raise RequestCancelledError("r1")


def test_a_stream_in_a_thread_ends_at_its_deadline_although_no_replica_has_it() -> None:
    with pytest.raises(RpcError, match=r"^DEADLINE_EXCEEDED: Deadline exceeded"):
        next(AsyncProbeHandle(Unassigned()).Down(Ask(), timeout=0.05))
    call = AsyncProbeHandle(Unassigned()).Down(Ask(), timeout=60)
    threading.Timer(0.05, call.cancel).start()
    with pytest.raises(RpcError, match=r"^CANCELLED: "):
        next(call)


class Gone:
    """Ray Serve's response of a call to a deleted deployment: every use raises."""

    def options(self, **_: Any) -> Gone:
        return self

    def remote(self, *_: Any) -> Gone:
        return self

    async def __anext__(self) -> Any:
        self.result()

    def __next__(self) -> Any:
        self.result()

    def __await__(self) -> Any:
        self.result()

    def result(self, timeout_s: float | None = None) -> Any:
        raise DeploymentUnavailableError(DeploymentID("Callee", "app"))

    cancel = result


async def test_a_deployment_that_is_gone_is_unavailable() -> None:
    handle = AsyncProbeHandle(Gone())
    said = (
        r"^UNAVAILABLE: Deployment\(name='Callee', app='app'\) is not available: "
        r"it failed to deploy, or was deleted$"
    )
    for timeout in (None, 5):
        with pytest.raises(RpcError, match=said):
            await handle.Unary(Ask(), timeout=timeout)
        with pytest.raises(RpcError, match=said):
            handle.Unary(Ask(), timeout=timeout).result()
        with pytest.raises(RpcError, match=said):
            await anext(handle.Down(Ask(), timeout=timeout))
        with pytest.raises(RpcError, match=said):
            next(handle.Down(Ask(), timeout=timeout))


async def test_after_the_deadline_nothing_is_sent() -> None:
    handle = handle_to(Callee())
    with outer_call(timeout=0), pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
        handle.Unary(Ask(act="echo"))
    assert not handle._handle.sent


async def test_a_status_arrives_with_all_it_has() -> None:
    error = await error_of("raise")
    assert (error.code, error.details) == (grpc.StatusCode.NOT_FOUND, "no such")
    assert error.trailing_metadata == (("k", "v"),)
    assert error.find(BadRequest) == BAD


async def test_abort_and_status_details_arrive() -> None:
    error = await error_of("abort")
    assert (error.code, error.details) == (grpc.StatusCode.ABORTED, "no")
    assert error.trailing_metadata == (("kept", "yes"),)
    error = await error_of("abort with status")
    assert (error.code, error.find(BadRequest)) == (grpc.StatusCode.INVALID_ARGUMENT, BAD)
    assert not error.trailing_metadata
    assert (await error_of("swallow")).details == "swallowed"


async def test_a_code_that_was_set_arrives_as_error() -> None:
    error = await error_of("code")
    assert (error.code, error.details) == (grpc.StatusCode.OUT_OF_RANGE, "too far")
    assert (await error_of("cancel")).code is grpc.StatusCode.CANCELLED


async def test_other_errors_are_unchanged() -> None:
    handle = handle_to(Callee())
    with pytest.raises(ValueError, match="a value"):
        await handle.Unary(Ask(act="fail"))
    with pytest.raises(TimeoutError, match="its own"):
        await handle.Unary(Ask(act="timeout"), timeout=10)


async def test_a_wrong_answer_is_internal_and_names_both_types() -> None:
    error = await error_of("wrong")
    assert error.code is grpc.StatusCode.INTERNAL
    assert error.details == "Callee.Unary returned a builtins.int; the proto says probe.Told"


async def test_a_deployment_of_another_service_is_unimplemented() -> None:
    with pytest.raises(RpcError) as raised:
        await SyncProbeHandle(LocalHandle(Callee())).Unary(Ask())
    assert raised.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert raised.value.details == "deployment class Callee has no method /probe.SyncProbe/Unary"


async def test_a_cancelled_caller_cancels_the_handler() -> None:
    callee = Callee()
    waiting = asyncio.ensure_future(handle_to(callee).Unary(Ask(act="wait")))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait_for(callee.ended.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_abandoned_stream_cancels_the_handler() -> None:
    callee = Callee()
    async for _ in handle_to(callee).Down(Ask(act="wait", number=3)):
        break
    gc.collect()
    await asyncio.wait_for(callee.ended.wait(), 5)


async def test_a_stream_may_end_with_a_status() -> None:
    stream = handle_to(Callee()).Down(Ask(act="raise", number=3))
    assert [(await anext(stream)).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RpcError, match="DATA_LOSS: half"):
        await anext(stream)


async def test_a_streaming_handler_waits_for_its_reader() -> None:
    callee = Callee()
    stream = handle_to(callee).Down(Ask(number=1000))
    await anext(stream)
    await asyncio.sleep(0.05)
    assert callee.yielded < 30
    await stream.aclose()


def test_an_rpc_with_a_request_stream_is_missing_with_a_remedy() -> None:
    text = (
        "AsyncProbeHandle has no Up: a handle carries one request message, and Up takes a stream of them. "
        "Call it with AsyncProbeClient, through the ingress"
    )
    with pytest.raises(AttributeError, match=f"^{re.escape(text)}$"):
        handle_to(None).Up  # type: ignore[arg-type,attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="AsyncProbeHandle has no RPC 'Missing'; it has Down, Unary"):
        handle_to(None).Missing  # type: ignore[arg-type,attr-defined]  # noqa: B018


async def test_an_rpc_that_is_called_call_makes_the_handle_callable() -> None:
    class Greets(UserDefinedServiceBase):
        async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
            return UserDefinedResponse(greeting=f"Hello {request.name}")

    async def call() -> str:
        return (await UserDefinedServiceHandle(LocalHandle(Greets()))(UserDefinedMessage(name="you"))).greeting

    assert await call() == "Hello you"


def test_wrong_use_is_an_error() -> None:
    handle = AsyncProbeHandle(LocalHandle(None))
    with pytest.raises(TypeError, match=r"Unary takes a probe\.Ask, not a Told"):
        handle.Unary(Told())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'deadline'; it takes metadata, model_id, timeout"):
        handle.Unary(Ask(), deadline=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="must be called on a handle, not on its class"):
        AsyncProbeHandle.Unary(Ask())
    with pytest.raises(TypeError, match="is not deployed yet"):
        AsyncProbeHandle(object()).Unary(Ask())


def test_a_handle_is_pickled_without_its_cache() -> None:
    handle = AsyncProbeHandle("raw")
    assert handle.Unary.method.name == "Unary"
    copied = pickle.loads(pickle.dumps(handle))
    assert (type(copied), copied._handle) == (AsyncProbeHandle, "raw")
    assert AsyncProbeHandle(handle)._handle == "raw"


def test_the_remaining_time_is_pickled_and_not_the_deadline() -> None:
    call = InnerCall("/a/B", b"", deadline=time.monotonic() + 10)
    data = pickle.dumps(call)
    time.sleep(0.2)
    assert 9.9 < pickle.loads(data).time_remaining() <= 10
