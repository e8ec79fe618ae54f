"""Typed handles and the replicas that answer them, without Ray Serve."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle, SyncProbeBase, SyncProbeHandle
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedResponse
from user_defined_protos_sdk import UserDefinedServiceBase, UserDefinedServiceHandle

from sdk._channel import target as targets
from sdk.context import current_context
from sdk.errors import RpcError
from tests.support.deadlines import growing_deadlines
from tests.support.loops import PATIENCE_S
from tests.support.served_handle import Deployment, deployment, outer_call
from tests.support.wire_rig import until

BAD = BadRequest(field_violations=[BadRequest.FieldViolation(field="name", description="is empty")])


class Callee(AsyncProbeBase):
    """Does what the request says; ``ended`` is set when a waiting call is cancelled."""

    def __init__(self) -> None:
        self.began = False
        self.ended = asyncio.Event()
        self.yielded = 0

    async def Unary(self, request: Ask, grpc_context: Any) -> Told:
        match request.act:
            case "echo":
                return Told(text=request.note, number=request.number)
            case "seen":
                seen = dict(grpc_context.invocation_metadata())
                seen |= {"id": grpc_context.request_id(), "model": grpc_context.multiplexed_model_id()}
                seen |= {"peer": grpc_context.peer(), "method": current_context()._call.path.decode()}
                assert current_context() is grpc_context
                return Told(text=repr(seen))
            case "left":
                left = grpc_context.time_remaining()
                return Told(text=repr(left))
            case "wait":
                self.began = True
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
                return Told()
            case "cancel":
                grpc_context.cancel()
                await asyncio.sleep(10)
            case "fail":
                raise ValueError("a value")
            case "timeout":
                raise TimeoutError("its own")
            case "stop":
                raise StopIteration
            case "exit":
                raise GeneratorExit
            case "group":
                raise BaseExceptionGroup("two", [ValueError("a"), asyncio.CancelledError()])
            case "its own task":
                loading = asyncio.ensure_future(asyncio.Event().wait())
                asyncio.get_running_loop().call_soon(loading.cancel)
                await loading
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

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        total = 0
        async for request in requests:
            total += request.number
            if request.act == "stop":
                break
            if request.act == "fail":
                raise RpcError(grpc.StatusCode.OUT_OF_RANGE, "enough")
        return Told(number=total, text=current_context().request_id())

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            yield Told(number=2 * request.number)


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


@contextlib.asynccontextmanager
async def handle_to(callee: Any) -> AsyncIterator[AsyncProbeHandle]:
    async with deployment(callee) as served:
        yield AsyncProbeHandle(served.handle)


async def error_of(handle: AsyncProbeHandle, act: str, **options: Any) -> RpcError:
    with pytest.raises(RpcError) as raised:
        await handle.Unary(Ask(act=act), **options)
    return raised.value


async def test_unary(handle: AsyncProbeHandle) -> None:
    assert await handle.Unary(Ask(act="echo", note="x", number=7)) == Told(text="x", number=7)
    replies = await asyncio.gather(*(handle.Unary(Ask(act="echo", number=n)) for n in range(50)))
    assert [reply.number for reply in replies] == list(range(50))
    long = "x" * 3_000_000
    assert (await handle.Unary(Ask(act="echo", note=long))).text == long
    assert await handle.Unary(Ask(act="echo")) == Told()


async def test_a_deployment_of_this_process_is_called_even_if_it_was_on_a_node_before() -> None:
    async with deployment(Callee()) as first:
        await AsyncProbeHandle(first.handle).Unary(Ask(act="echo", note="x", number=7))
        targets._by_loop[asyncio.get_running_loop()]._node_id = "a node of a cluster that has gone"
    async with deployment(Callee()) as second:
        await AsyncProbeHandle(second.handle).Unary(Ask(act="echo", note="x", number=7), timeout=PATIENCE_S)


async def test_several_tasks_may_wait_for_one_call(handle: AsyncProbeHandle) -> None:
    async def wait(call: Any) -> Any:
        return await call

    call = handle.Unary(Ask(act="echo", number=7))
    assert await asyncio.gather(wait(call), wait(call), wait(call)) == [Told(number=7)] * 3
    call = handle.Unary(Ask(act="wait"))
    first, second = asyncio.ensure_future(wait(call)), asyncio.ensure_future(wait(call))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(RpcError, match="CANCELLED: the caller cancelled the call"):
        await second
    assert first.cancelled()


@pytest.mark.parametrize("callee", [Callee, PlainCallee, WritingCallee])
async def test_a_stream_of_every_kind_of_handler(callee: type[Callee]) -> None:
    async with handle_to(callee()) as handle:
        assert [reply.number async for reply in handle.Down(Ask(number=100))] == list(range(100))
        assert [reply async for reply in handle.Down(Ask())] == []


class SyncCallee(SyncProbeBase):
    def Unary(self, request: Ask) -> Told:
        return next(iter([]))

    def Down(self, request: Ask) -> Iterator[Told]:
        yield Told()

    def Up(self, requests: Iterator[Ask]) -> Told:
        return Told(number=sum(request.number for request in requests))

    def Both(self, requests: Iterator[Ask]) -> Iterator[Told]:
        for request in requests:
            yield Told(number=2 * request.number)


async def asks(count: int) -> AsyncIterator[Ask]:
    for number in range(count):
        await asyncio.sleep(0)
        yield Ask(number=number)


async def test_streams_of_requests(handle: AsyncProbeHandle) -> None:
    assert (await handle.Up(asks(100))).number == 4950
    assert (await handle.Up([])).number == 0
    assert (await handle.Up(Ask(number=n) for n in range(3))).number == 3
    assert [reply.number async for reply in handle.Both(asks(5))] == [0, 2, 4, 6, 8]
    assert [reply.number async for reply in handle.Both([])] == []


async def test_streams_of_requests_to_sync_handlers() -> None:
    async with deployment(SyncCallee()) as served:
        handle = SyncProbeHandle(served.handle)
        assert (await handle.Up(asks(10))).number == 45
        assert [reply.number async for reply in handle.Both(asks(5))] == [0, 2, 4, 6, 8]


async def test_a_conversation(handle: AsyncProbeHandle) -> None:
    sent: asyncio.Queue[Ask] = asyncio.Queue()

    async def requests() -> AsyncIterator[Ask]:
        while (request := await sent.get()).act != "end":
            yield request

    call = handle.Both(requests())
    for number in range(5):
        sent.put_nowait(Ask(number=number))
        assert (await anext(call)).number == 2 * number
    sent.put_nowait(Ask(act="end"))
    assert [reply async for reply in call] == []


async def test_the_handler_may_end_before_its_requests_do(handle: AsyncProbeHandle) -> None:
    async def endless() -> AsyncIterator[Ask]:
        yield Ask(number=7, act="stop")
        await asyncio.Event().wait()

    assert (await handle.Up(endless(), timeout=30)).number == 7
    with pytest.raises(RpcError, match="OUT_OF_RANGE: enough"):
        await handle.Up([Ask(act="fail"), *[Ask()] * 1000])


async def test_an_error_of_the_requests_is_the_callers_own(handle: AsyncProbeHandle) -> None:
    async def broken() -> AsyncIterator[Ask]:
        yield Ask(number=1)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await handle.Up(broken())
    with pytest.raises(TypeError, match=r"Up takes a probe\.Ask, not a Told"):
        await handle.Up([Told()])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"Up takes an iterable or an async iterable of probe\.Ask, not a Ask"):
        handle.Up(Ask())  # type: ignore[arg-type]


async def test_the_requests_see_the_callers_context(handle: AsyncProbeHandle) -> None:
    seen = []

    async def requests() -> AsyncIterator[Ask]:
        seen.append(current_context().request_id())
        yield Ask()

    with outer_call(("request_id", "r1")):
        await handle.Up(requests())
    assert seen == ["r1"]


async def test_a_plain_function_runs_in_a_thread_with_its_context() -> None:
    async with handle_to(PlainCallee()) as handle:
        with outer_call(("request_id", "r1")):
            assert (await handle.Unary(Ask())).text == "r1"


async def test_a_thread_waits_for_every_kind_of_call(handle: AsyncProbeHandle) -> None:
    def blocking() -> list[Any]:
        handle._loop = handle._target = None
        return [
            handle.Unary(Ask(act="echo", number=1)).result().number,
            [reply.number for reply in handle.Down(Ask(number=3))],
            handle.Up(Ask(number=n) for n in range(4)).result().number,
            [reply.number for reply in handle.Both([Ask(number=1)])],
        ]

    assert await asyncio.to_thread(blocking) == [1, [0, 1, 2], 6, [2]]
    call = handle.Unary(Ask(act="echo"))
    with pytest.raises(RuntimeError, match="a blocking call on an event loop would block it"):
        call.result()
    assert await call == Told()


async def test_the_clients_call_is_carried_on(handle: AsyncProbeHandle) -> None:
    headers = [("request_id", "r1"), ("multiplexed_model_id", "m1"), ("user", "me"), ("application", "a")]
    headers += [("x-forwarded-for", "1.2.3.4:5"), ("grpc-timeout", "1S"), ("traceparent", "00-1-2-03")]
    with outer_call(*headers):
        seen = eval((await handle.Unary(Ask(act="seen"))).text)
    assert seen == {
        "request_id": "r1",
        "multiplexed_model_id": "m1",
        "application": "a",
        "user": "me",
        "traceparent": "00-1-2-03",
        "id": "r1",
        "model": "m1",
        "peer": "ipv4:1.2.3.4:5",
        "method": "/probe.AsyncProbe/Unary",
    }


async def test_the_metadata_that_ray_serves_own_proxy_has_received_is_carried_on_and_claims_nothing(
    handle: AsyncProbeHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [("x-forwarded-for", "6.6.6.6:1"), ("x-forwarded-client-cert", "Hash=1"), ("x-envoy-internal", "true")]
    received = [("request_id", "given"), ("user", "me"), ("multiplexed_model_id", "m1"), *claims, ("odd", "a\nb: c")]
    received += [("grpc-encoding", "br"), ("connection", "close"), ("request_id", "r1")]
    monkeypatch.setattr("sdk._serve.backend.current_metadata", lambda: received)
    seen = eval((await handle.Unary(Ask(act="seen"))).text)
    peer, method = seen.pop("peer"), seen.pop("method")
    assert (peer, method) == ("unknown", "/probe.AsyncProbe/Unary")
    assert seen == {"request_id": "r1", "id": "r1", "multiplexed_model_id": "m1", "model": "m1", "user": "me"}
    assert eval((await handle.Unary(Ask(act="seen"), model_id="m2")).text)["model"] == "m2"


async def test_a_call_may_name_its_model_and_metadata(handle: AsyncProbeHandle) -> None:
    with outer_call(("multiplexed_model_id", "m1"), ("user", "me")):
        pairs: list[Any] = [("more", "x"), ("b-bin", b"\0")]
        seen = eval((await handle.Unary(Ask(act="seen"), model_id="m2", metadata=pairs)).text)
        assert (seen["model"], seen["multiplexed_model_id"], seen["user"], seen["more"]) == ("m2", "m2", "me", "x")
        assert seen["b-bin"] == b"\0"
        with pytest.raises(ValueError, match="reserved for gRPC"):
            handle.Unary(Ask(), metadata=[("grpc-status", "0")])


@pytest.mark.parametrize("text", ["m\r\nx-forwarded-for: 6.6.6.6:1", "m\n", "é", "m\0", 3, b"m"])
async def test_ids_add_no_other_header_lines(handle: AsyncProbeHandle, text: Any) -> None:
    with pytest.raises(ValueError, match="multiplexed_model_id must be printable ASCII text, not "):
        handle.Unary(Ask(act="seen"), model_id=text)
    with pytest.raises(ValueError, match="request_id must be printable ASCII text, not "):
        handle.Unary(Ask(act="seen"), metadata=[("request_id", text)])


async def test_without_an_outer_call_a_request_id_is_generated(handle: AsyncProbeHandle) -> None:
    seen = eval((await handle.Unary(Ask(act="seen"))).text)
    assert len(seen["id"]) == 36
    assert seen["model"] is None
    assert eval((await handle.Unary(Ask(act="seen"), metadata=[("request_id", "mine")])).text)["id"] == "mine"


async def test_the_shorter_of_both_deadlines_is_forwarded(handle: AsyncProbeHandle) -> None:
    assert (await handle.Unary(Ask(act="left"))).text == "None"
    with outer_call(timeout=50):
        assert 40 < float((await handle.Unary(Ask(act="left"))).text) < 50.001
        assert 40 < float((await handle.Unary(Ask(act="left"), timeout=90)).text) < 50.001
        assert 5 < float((await handle.Unary(Ask(act="left"), timeout=10)).text) < 10.001


async def test_a_deadline_ends_the_handler_too() -> None:
    callee = Callee()
    async with handle_to(callee) as handle:
        for seconds in growing_deadlines():
            assert (await error_of(handle, "wait", timeout=seconds)).code is grpc.StatusCode.DEADLINE_EXCEEDED
            if callee.began:
                break
        await asyncio.wait_for(callee.ended.wait(), 5)
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await anext(handle.Down(Ask(act="wait"), timeout=0.05))
        with outer_call(timeout=0), pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            handle.Unary(Ask(act="echo"))


@pytest.mark.parametrize("ends", ["returned", "failed", "cancelled"])
async def test_the_end_of_the_outer_call_cancels_what_it_began(ends: str) -> None:
    callee = Callee()
    async with handle_to(callee) as handle:
        with outer_call() as outer:
            calls = [handle.Unary(Ask(act="wait")), handle.Down(Ask(act="wait", number=1))]
            await anext(calls[1])  # type: ignore[call-overload]
            match ends:
                case "returned":
                    outer.finish_with(0, "")
                case "failed":
                    outer._finish_raised(ValueError("of a sibling"))
                case _:
                    outer.connection_lost()
        await asyncio.wait_for(callee.ended.wait(), 5)
        with pytest.raises(RpcError, match="CANCELLED: the caller cancelled the call"):
            await calls[0]  # type: ignore[misc]
        assert not outer.inner.calls  # type: ignore[union-attr]


async def test_an_abandoned_call_logs_nothing(handle: AsyncProbeHandle, caplog: pytest.LogCaptureFixture) -> None:
    call = handle.Unary(Ask(act="raise"))
    await asyncio.sleep(0.05)
    del call
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_status_arrives_with_all_it_has(handle: AsyncProbeHandle) -> None:
    error = await error_of(handle, "raise")
    assert (error.code, error.details) == (grpc.StatusCode.NOT_FOUND, "no such")
    assert error.trailing_metadata == (("k", "v"),)
    assert error.find(BadRequest) == BAD


async def test_abort_and_status_details_arrive(handle: AsyncProbeHandle) -> None:
    error = await error_of(handle, "abort")
    assert (error.code, error.details) == (grpc.StatusCode.ABORTED, "no")
    assert error.trailing_metadata == (("kept", "yes"),)
    error = await error_of(handle, "abort with status")
    assert (error.code, error.find(BadRequest)) == (grpc.StatusCode.INVALID_ARGUMENT, BAD)
    assert not error.trailing_metadata
    assert (await error_of(handle, "swallow")).details == "swallowed"
    error = await error_of(handle, "code")
    assert (error.code, error.details) == (grpc.StatusCode.OUT_OF_RANGE, "too far")
    assert (await error_of(handle, "cancel")).code is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("fail", "INTERNAL", "ValueError: a value"),
        ("timeout", "INTERNAL", "TimeoutError: its own"),
        ("stop", "INTERNAL", "RuntimeError: coroutine raised StopIteration"),
        ("group", "INTERNAL", "ValueError: a"),
        ("its own task", "CANCELLED", "the handler was cancelled"),
    ],
)
async def test_what_a_handler_raises_has_the_outcome_that_a_client_sees(
    handle: AsyncProbeHandle, act: str, code: str, said: str
) -> None:
    error = await error_of(handle, act)
    assert error.code.name == code
    assert said in error.details


async def test_a_wrong_answer_is_internal_and_names_both_types(handle: AsyncProbeHandle) -> None:
    error = await error_of(handle, "wrong")
    assert error.code is grpc.StatusCode.INTERNAL
    assert error.details == "Callee.Unary returned a builtins.int; the proto says probe.Told"


async def test_a_deployment_of_another_service_is_unimplemented(served: Deployment) -> None:
    with pytest.raises(RpcError) as raised:
        await SyncProbeHandle(served.handle).Unary(Ask())
    assert raised.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert "has no method 'Unary' of service 'probe.SyncProbe'" in raised.value.details


async def test_a_cancelled_caller_cancels_the_handler() -> None:
    callee = Callee()
    async with handle_to(callee) as handle:
        waiting = asyncio.ensure_future(handle.Unary(Ask(act="wait")))
        await until(lambda: callee.began)
        waiting.cancel()
        await asyncio.wait_for(callee.ended.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_an_abandoned_stream_cancels_the_handler() -> None:
    callee = Callee()
    async with handle_to(callee) as handle:
        async for _ in handle.Down(Ask(act="wait", number=3)):
            break
        gc.collect()
        await asyncio.wait_for(callee.ended.wait(), 5)


async def test_a_stream_may_end_with_a_status(handle: AsyncProbeHandle) -> None:
    stream = handle.Down(Ask(act="raise", number=3))
    assert [(await anext(stream)).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RpcError, match="DATA_LOSS: half"):
        await anext(stream)


class Pouring(Callee):
    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            self.yielded += 1
            yield Told(number=number, payload=b"x" * 10_000)

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        await self.ended.wait()
        return Told(number=len([request async for request in requests]))


async def test_a_handler_waits_for_a_slow_caller() -> None:
    callee = Pouring()
    async with handle_to(callee) as handle:
        stream = handle.Down(Ask(number=2000))
        await anext(stream)
        await asyncio.sleep(0.2)
        assert callee.yielded < 1000
        assert len([None async for _ in stream]) == 1999


async def test_a_caller_waits_for_a_slow_handler() -> None:
    callee = Pouring()
    taken = 0

    async def requests() -> AsyncIterator[Ask]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield Ask(payload=b"x" * 10_000)

    async with handle_to(callee) as handle:
        waiting = asyncio.ensure_future(handle.Up(requests()))
        await asyncio.sleep(0.2)
        assert taken < 1000
        callee.ended.set()
        assert (await waiting).number == 2000


async def test_an_rpc_that_is_called_call_makes_the_handle_callable() -> None:
    class Greets(UserDefinedServiceBase):
        async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
            return UserDefinedResponse(greeting=f"Hello {request.name}")

    async with deployment(Greets()) as served:
        reply = await UserDefinedServiceHandle(served.handle)(UserDefinedMessage(name="you"))
    assert reply.greeting == "Hello you"


async def test_wrong_use_is_an_error(handle: AsyncProbeHandle) -> None:
    with pytest.raises(TypeError, match=r"Unary takes a probe\.Ask, not a Told"):
        handle.Unary(Told())  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match="unexpected keyword argument 'deadline'; it takes compression, metadata, model_id, timeout"
    ):
        handle.Unary(Ask(), deadline=3)  # type: ignore[call-arg]
    for timeout in "3", float("nan"):
        with pytest.raises(TypeError, match="Unary: timeout must be a number of seconds, or None, not "):
            handle.Unary(Ask(), timeout=timeout)  # type: ignore[arg-type]
    assert await handle.Unary(Ask(act="echo"), timeout=None, metadata=None) == Told()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be called on a handle, not on its class"):
        AsyncProbeHandle.Unary(Ask())
    with pytest.raises(TypeError, match="is not deployed yet"):
        AsyncProbeHandle(object()).Unary(Ask())
    with pytest.raises(TypeError, match=r"Unary takes a probe\.Ask: Unary\(Ask\("):
        handle.Unary()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Up takes an iterable of probe\.Ask: Up\(\[Ask\("):
        handle.Up()  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="AsyncProbeHandle has no RPC 'Missing'; it has Both, Down, Unary, Up"):
        handle.Missing  # type: ignore[attr-defined]  # noqa: B018


def test_a_handle_is_pickled_without_its_cache() -> None:
    handle = AsyncProbeHandle("raw")
    assert handle.Unary.method.name == "Unary"
    copied = pickle.loads(pickle.dumps(handle))
    assert (type(copied), copied._handle) == (AsyncProbeHandle, "raw")
    assert AsyncProbeHandle(handle)._handle == "raw"
