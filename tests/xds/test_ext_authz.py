"""Calls to a deployment that is scaled to zero wait in a real Envoy until the gate allows them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc
import grpc.aio
import pytest

from sdk._ingress.scale_to_zero.gate import Gate
from sdk._xds.resources import build_resources
from sdk._xds.snapshot import Snapshot
from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S
from tests.web.http_client import Answer, ask_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


GREET = "/demo.Greeter/SayHello"
GREETER = ("one", "Greeter")


class GateRig:
    """Rig whose deployments may scale to zero, with a gate like the proxy's."""

    def __init__(self, it: Rig, request_timeout_s: float | None = None) -> None:
        self.it = it
        self.reasons: dict[tuple[str, str], str] = {}
        self.reports: list[dict[tuple[str, str], int]] = []
        self.gate = Gate(self._report)
        self.request_timeout_s = request_timeout_s
        self.idempotent: tuple[str, ...] = ()

    async def _report(self, counts: Mapping[tuple[str, str], int]) -> Mapping[tuple[str, str], str]:
        self.reports.append(dict(counts))
        return self.reasons

    async def publish(self, *upstreams: str, max_waiting: int = 1000, others: Any = None) -> None:
        snapshot = self.it.snapshot({"one": {"Greeter": (["demo.Greeter"], list(upstreams))}, **(others or {})})
        one = snapshot.applications[0]
        one = replace(
            one, deployments=(replace(one.deployments[0], max_waiting=max_waiting, idempotent=self.idempotent),)
        )
        snapshot = replace(
            snapshot, applications=(one, *snapshot.applications[1:]), request_timeout_s=self.request_timeout_s
        )
        self.gate.on_publish(snapshot)
        await asyncio.wait_for(self.it.ads.publish(build_resources(snapshot, self.it.config)), PATIENCE_S)
        self.gate.on_acknowledged(snapshot)

    async def until_waiting(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.gate.waiting.get(GREETER, 0) != number:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def gate_rig(*upstreams: str, request_timeout_s: float | None = None) -> AsyncIterator[GateRig]:
    async with rig(*upstreams) as it:
        it.config = replace(it.config, gate_socket=str(it.folder / "gate.sock"))
        gated = GateRig(it, request_timeout_s)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((gated.gate.generic_handler(),))
        server.add_insecure_port(f"unix:{it.config.gate_socket}")
        await server.start()
        reporting = asyncio.create_task(gated.gate.report_forever())
        try:
            yield gated
        finally:
            reporting.cancel()
            await server.stop(None)


def call(it: Rig, *metadata: tuple[str, str], **options: Any) -> Any:
    method = it.channel.unary_unary(GREET, request_serializer=None, response_deserializer=None)
    return method(options.pop("body", b""), metadata=metadata, timeout=options.pop("timeout", PATIENCE_S), **options)


async def test_calls_wait_for_the_first_replica() -> None:
    async with gate_rig("a", "b") as gated:
        it = gated.it
        await gated.publish(others={"two": {"Greeter": (["demo.Greeter"], ["b"])}})
        one, two = ("application", "one"), ("application", "two")
        calls = [asyncio.create_task(it.answers(GREET, one)) for _ in range(50)]
        calls.append(asyncio.create_task(it.answers(GREET, one, ("multiplexed_model_id", "m1"))))
        calls.append(asyncio.create_task(it.answers(GREET, two, one)))
        await gated.until_waiting(52)
        while {GREETER: 52} not in gated.reports:
            await asyncio.sleep(0.01)
        assert await it.answers(GREET, two) == "b", "another application's calls don't wait"
        assert await it.answers(GREET, one, two) == "b"
        assert await it.answers(GREET, one, ("application", "three")) == "NOT_FOUND"
        assert not it.upstreams["a"].calls
        await gated.publish("a")
        assert await it.answers(GREET, one) == "a"
        assert set(await asyncio.gather(*calls)) == {"a"}
        while gated.reports[-1]:
            await asyncio.sleep(0.01)


async def test_what_is_no_call_starts_no_replica() -> None:
    async with gate_rig("a") as gated:
        it = gated.it
        await gated.publish()
        for method, content_type in (("GET", "application/grpc"), ("POST", "text/plain"), ("POST", "")):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            content = f"content-type: {content_type}\r\n" if content_type else ""
            writer.write(f"{method} / HTTP/1.1\r\nhost: x\r\n{content}content-length: 0\r\n\r\n".encode())
            status = await asyncio.wait_for(reader.readline(), PATIENCE_S)
            assert status.split()[1] == (b"405" if method == "GET" else b"415")
            writer.close()
        assert gated.reports == []
        waits = call(it)
        await gated.until_waiting(1)
        waits.cancel()


async def test_a_waiting_call_ends_by_deadline_timeout_or_startup_failure() -> None:
    async with gate_rig("a", request_timeout_s=0.7) as gated:
        it = gated.it
        await gated.publish(max_waiting=2)
        assert await answer(call(it, ("request_id", "r1"), timeout=None)) == (
            "DEADLINE_EXCEEDED",
            "Request timed out after 0.7s.",
            "r1",
        )
        gated.request_timeout_s = None
        await gated.publish(max_waiting=2)
        first, second = call(it, timeout=2), call(it, ("request_id", "r2"))
        await gated.until_waiting(2)
        code, details, request_id = await answer(call(it, ("request_id", "r3")))
        assert (code, request_id) == ("RESOURCE_EXHAUSTED", "r3")
        assert details.startswith("Request dropped due to backpressure: 2 requests already wait for a replica")
        assert (await answer(first))[0] == "DEADLINE_EXCEEDED"
        await gated.until_waiting(1)
        gated.reasons = {GREETER: "ValueError: café"}
        assert await answer(second) == (
            "UNAVAILABLE",
            "No replica of application 'one' can be started: ValueError: café",
            "r2",
        )
        gated.reasons = {}
        gone = call(it)
        await gated.until_waiting(1)
        gone.cancel()
        await gated.until_waiting(0)
        for change, code in (({"max_waiting": 0}, "UNAVAILABLE"), (None, "NOT_FOUND")):
            await gated.publish()
            waits = call(it, timeout=None)
            await gated.until_waiting(1)
            if change is None:
                gated.gate.on_acknowledged(Snapshot(2))
            else:
                await gated.publish(**change)
            assert (await answer(waits))[0] == code
        refused = {(reason, code.name): count for (reason, code), count in gated.gate.take_refused().items()}
        # At its deadline a call ends at its client too, which may cancel it before the gate answers.
        assert refused.pop(("timeout", "DEADLINE_EXCEEDED")) in (1, 2)
        assert refused == {
            ("overflow", "RESOURCE_EXHAUSTED"): 1,
            ("no_replica", "UNAVAILABLE"): 2,
            ("no_route", "NOT_FOUND"): 1,
        }
        assert not gated.gate.take_refused()


async def answer(call: Any) -> tuple[str, str, str]:
    """Return the status of a failed call, its details, and the request id in its trailers."""
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    ids = [str(value) for key, value in await call.trailing_metadata() if key == "request_id"]
    return (await call.code()).name, await call.details(), "".join(ids)


async def test_a_long_request_waits_in_envoy_and_arrives_whole() -> None:
    async with gate_rig("a") as gated:
        await gated.publish()
        waits = [call(gated.it, body=bytes(3 << 20)) for _ in range(5)]
        await gated.until_waiting(5)
        await gated.publish("a")
        assert {(await one).split()[0] for one in waits} == {b"a"}


async def test_the_replica_gets_the_remaining_deadline() -> None:
    async with gate_rig("a") as gated:
        await gated.publish()
        began = time.monotonic()
        waits = call(gated.it, timeout=PATIENCE_S)
        await gated.until_waiting(1)
        await asyncio.sleep(0.5)
        await gated.publish("a")
        await waits
        took = time.monotonic() - began
        left = gated.it.upstreams["a"].headers["grpc-timeout"]
        assert left[-1] == "m"
        # What it has waited is missing, and no more than the whole call has taken; 0.1 s for other clocks.
        assert PATIENCE_S - took - 0.1 <= int(left[:-1]) / 1000 <= PATIENCE_S - 0.4


async def test_no_call_fails_while_scaling_to_zero_and_back() -> None:
    async with gate_rig("a", "b") as gated:
        await gated.publish("a")
        codes: dict[str, int] = {}
        stopped = asyncio.Event()

        async def load() -> None:
            while not stopped.is_set():
                answer = await gated.it.answers(GREET)
                codes[answer] = codes.get(answer, 0) + 1

        workers = [asyncio.create_task(load()) for _ in range(20)]
        for name in ["b", "a"] * 10:
            await asyncio.sleep(0.08)
            await gated.publish()
            await gated.until_waiting(20)
            await gated.publish(name)
        stopped.set()
        await asyncio.gather(*workers)
        assert set(codes) == {"a", "b"}, codes


async def test_calls_are_routed_as_usual_if_the_gate_is_gone() -> None:
    async with rig("a") as it:
        it.config = replace(it.config, gate_socket=str(it.folder / "nobody.sock"))
        gated = GateRig(it)
        await gated.publish()
        code, details, request_id = await answer(call(it, ("request_id", "r1"), wait_for_ready=True))
        assert (code, details, request_id) == ("UNAVAILABLE", "No replica of application 'one' is ready.", "r1")


# -- other protocols than gRPC ---------------------------------------------------------------------

JSON, WEB = {"content-type": "application/json"}, {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


async def ask_json(it: Rig, headers: Mapping[str, str]) -> Answer:
    # In a chunk, because the fake replica reads no other bodies.
    sent = {**headers, "transfer-encoding": "chunked"}
    return await asyncio.to_thread(ask_at, f"127.0.0.1:{it.port}", GREET, b"2\r\n{}\r\n0\r\n\r\n", sent)


async def test_calls_of_other_protocols_wait_too_and_their_deadline_counts_from_their_start() -> None:
    async with gate_rig("a") as gated:
        await gated.publish()
        calls = [
            asyncio.create_task(ask_json(gated.it, {**JSON, "connect-timeout-ms": "60000"})),
            asyncio.create_task(ask_json(gated.it, {**WEB, "grpc-timeout": "60S"})),
        ]
        await gated.until_waiting(2)
        await gated.publish("a")
        await asyncio.wait(calls, timeout=PATIENCE_S)
        assert [call.result().status for call in calls] == [200, 200]
        assert gated.it.upstreams["a"].calls == 2


async def test_a_get_waits_if_it_can_be_a_call() -> None:
    async with gate_rig() as gated:
        gated.idempotent = (GREET,)
        await gated.publish()
        address = f"127.0.0.1:{gated.it.port}"
        assert (await asyncio.to_thread(ask_at, address, "/demo.Greeter/Other?message=%7B%7D", None)).status == 405
        get = asyncio.create_task(asyncio.to_thread(ask_at, address, f"{GREET}?encoding=json&message=%7B%7D", None))
        await gated.until_waiting(1)
        await gated.publish(max_waiting=0)
        assert (await get).status == 503


async def test_the_replica_gets_the_deadline_that_is_left() -> None:
    async with gate_rig("a") as gated:
        await gated.publish()
        call = asyncio.create_task(ask_json(gated.it, {**JSON, "connect-timeout-ms": "60000"}))
        await gated.until_waiting(1)
        await gated.publish("a")
        await call
        headers = gated.it.upstreams["a"].headers
        assert 0 < int(headers["connect-timeout-ms"]) < 60_000
        assert "grpc-timeout" not in headers


@pytest.mark.parametrize(
    ("cause", "code", "name", "http", "text"),
    [
        ("deadline", 4, "deadline_exceeded", 504, "Deadline exceeded."),
        ("limit", 8, "resource_exhausted", 429, "Request dropped due to backpressure: 1 requests already wait"),
        ("reason", 14, "unavailable", 503, "No replica of application 'one' can be started: no — ü"),
    ],
)
async def test_the_end_of_a_wait_has_the_form_of_each_protocol(
    cause: str, code: int, name: str, http: int, text: str
) -> None:
    async with gate_rig() as gated:
        await gated.publish(max_waiting=1)
        waiting = asyncio.create_task(ask_json(gated.it, JSON)) if cause == "limit" else None
        if waiting is not None:
            await gated.until_waiting(1)
        if cause == "reason":
            gated.reasons = {GREETER: "no — ü"}
        timeout = cause == "deadline"
        as_json = await ask_json(gated.it, {**JSON, **({"connect-timeout-ms": "20"} if timeout else {})})
        assert (as_json.status, as_json.json["code"]) == (http, name)
        assert as_json.json["message"].startswith(text)
        web = await ask_json(gated.it, {**WEB, **({"grpc-timeout": "20m"} if timeout else {})})
        assert (web.status, web.headers["grpc-status"]) == (200, str(code))
        assert unquote(web.headers["grpc-message"]).startswith(text)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(gated.it, timeout=0.02 if timeout else PATIENCE_S)
        assert caught.value.code().value[0] == code
        if not timeout:
            assert (caught.value.details() or "").startswith(text)
        if waiting is not None:
            await gated.publish(max_waiting=0)
            assert (await waiting).status == 503
