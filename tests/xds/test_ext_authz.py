"""Calls to a deployment that is scaled to zero wait in a real Envoy until the gate lets them go on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from envoy_rig import Rig, rig

from sdk._ingress.scale_to_zero.gate import Gate
from sdk._xds.resources import build
from sdk._xds.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from loops import Run

GREET = "/demo.Greeter/SayHello"
GREETER = ("one", "Greeter")


class Held:
    """A rig whose deployments may scale to zero, with a gate as the proxy has one."""

    def __init__(self, it: Rig, request_timeout_s: float | None = None) -> None:
        self.it = it
        self.troubles: dict[tuple[str, str], str] = {}
        self.reports: list[dict[tuple[str, str], int]] = []
        self.gate = Gate(self._report)
        self.request_timeout_s = request_timeout_s

    async def _report(self, counts: Mapping[tuple[str, str], int]) -> Mapping[tuple[str, str], str]:
        self.reports.append(dict(counts))
        return self.troubles

    async def publish(self, *upstreams: str, max_waiting: int = 1000, others: Any = None) -> None:
        snapshot = self.it.snapshot({"one": {"Greeter": (["demo.Greeter"], list(upstreams))}, **(others or {})})
        one = snapshot.applications[0]
        one = replace(one, deployments=(replace(one.deployments[0], max_waiting=max_waiting),))
        snapshot = replace(
            snapshot, applications=(one, *snapshot.applications[1:]), request_timeout_s=self.request_timeout_s
        )
        self.gate.expect(snapshot)
        await asyncio.wait_for(self.it.ads.publish(build(snapshot, self.it.config)), 5)
        self.gate.serve(snapshot)

    async def until_waiting(self, number: int) -> None:
        async with asyncio.timeout(5):
            while self.gate.waiting.get(GREETER, 0) != number:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def held(*upstreams: str, request_timeout_s: float | None = None) -> AsyncIterator[Held]:
    async with rig(*upstreams) as it:
        it.config = replace(it.config, hold_socket=str(it.folder / "hold.sock"))
        holds = Held(it, request_timeout_s)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((holds.gate.generic_handler(),))
        server.add_insecure_port(f"unix:{it.config.hold_socket}")
        await server.start()
        reporting = asyncio.create_task(holds.gate.keep_reporting())
        try:
            yield holds
        finally:
            reporting.cancel()
            await server.stop(None)


def call(it: Rig, *metadata: tuple[str, str], **options: Any) -> Any:
    method = it.channel.unary_unary(GREET, request_serializer=None, response_deserializer=None)
    return method(options.pop("body", b""), metadata=metadata, timeout=options.pop("timeout", 10), **options)


def test_calls_wait_for_the_first_replica(run: Run) -> None:
    async def scenario() -> None:
        async with held("a", "b") as holds:
            it = holds.it
            await holds.publish(others={"two": {"Greeter": (["demo.Greeter"], ["b"])}})
            one, two = ("application", "one"), ("application", "two")
            calls = [asyncio.create_task(it.answers(GREET, one)) for _ in range(50)]
            calls.append(asyncio.create_task(it.answers(GREET, one, ("multiplexed_model_id", "m1"))))
            calls.append(asyncio.create_task(it.answers(GREET, two, one)))
            await holds.until_waiting(52)
            while {GREETER: 52} not in holds.reports:
                await asyncio.sleep(0.01)
            assert await it.answers(GREET, two) == "b", "another application's calls don't wait"
            assert await it.answers(GREET, one, two) == "b"
            assert await it.answers(GREET, one, ("application", "three")) == "NOT_FOUND"
            assert not it.upstreams["a"].calls
            await holds.publish("a")
            assert await it.answers(GREET, one) == "a"
            assert set(await asyncio.gather(*calls)) == {"a"}
            while holds.reports[-1]:
                await asyncio.sleep(0.01)

    run(scenario())


def test_a_waiting_call_ends_by_its_deadline_the_limit_or_the_reason_why_nothing_starts(run: Run) -> None:
    async def scenario() -> None:
        async with held("a", request_timeout_s=0.7) as holds:
            it = holds.it
            await holds.publish(max_waiting=2)
            assert await answer(call(it, ("request_id", "r1"), timeout=None)) == (
                "DEADLINE_EXCEEDED",
                "Request timed out after 0.7s.",
                "r1",
            )
            first, second = call(it, timeout=0.4), call(it, ("request_id", "r2"))
            await holds.until_waiting(2)
            code, details, request_id = await answer(call(it, ("request_id", "r3")))
            assert (code, request_id) == ("RESOURCE_EXHAUSTED", "r3")
            assert details.startswith("Request dropped due to backpressure: 2 requests wait for the first replica")
            assert (await answer(first))[0] == "DEADLINE_EXCEEDED"
            await holds.until_waiting(1)
            holds.troubles = {GREETER: "ValueError: café"}
            assert await answer(second) == (
                "UNAVAILABLE",
                "No replica of application 'one' can be started: ValueError: café",
                "r2",
            )
            holds.troubles = {}
            gone = call(it)
            await holds.until_waiting(1)
            gone.cancel()
            await holds.until_waiting(0)
            for change, code in (({"max_waiting": 0}, "UNAVAILABLE"), (None, "NOT_FOUND")):
                await holds.publish()
                waits = call(it, timeout=None)
                await holds.until_waiting(1)
                if change is None:
                    holds.gate.serve(Snapshot(2))
                else:
                    await holds.publish(**change)
                assert (await answer(waits))[0] == code

    run(scenario())


async def answer(call: Any) -> tuple[str, str, str]:
    """Returns the status of a call that fails, its details, and the request id among the trailers."""
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    trailers = dict(await call.trailing_metadata())
    return (await call.code()).name, await call.details(), trailers.get("request_id", "")


def test_a_long_request_waits_in_envoy_and_arrives_whole(run: Run) -> None:
    async def scenario() -> None:
        async with held("a") as holds:
            await holds.publish()
            waits = [call(holds.it, body=bytes(3 << 20)) for _ in range(5)]
            await holds.until_waiting(5)
            await holds.publish("a")
            assert {(await one).split()[0] for one in waits} == {b"a"}

    run(scenario())


def test_what_is_left_of_the_deadline_is_what_the_replica_gets(run: Run) -> None:
    async def scenario() -> None:
        async with held("a") as holds:
            await holds.publish()
            waits = call(holds.it, timeout=20)
            await asyncio.sleep(0.5)
            await holds.publish("a")
            await waits
            left = holds.it.upstreams["a"].headers["grpc-timeout"]
            assert left[-1] == "m"
            assert 10_000 < int(left[:-1]) < 19_600

    run(scenario())


def test_no_call_fails_while_the_last_replica_leaves_and_the_first_one_comes(run: Run) -> None:
    async def scenario() -> None:
        async with held("a", "b") as holds:
            await holds.publish("a")
            codes: dict[str, int] = {}
            stopped = asyncio.Event()

            async def load() -> None:
                while not stopped.is_set():
                    answer = await holds.it.answers(GREET)
                    codes[answer] = codes.get(answer, 0) + 1

            workers = [asyncio.create_task(load()) for _ in range(20)]
            for name in ["b", "a"] * 10:
                await asyncio.sleep(0.08)
                await holds.publish()
                await holds.until_waiting(20)
                await holds.publish(name)
            stopped.set()
            await asyncio.gather(*workers)
            assert set(codes) == {"a", "b"}, codes

    run(scenario())


def test_calls_go_where_they_would_when_the_gate_is_gone(run: Run) -> None:
    async def scenario() -> None:
        async with rig("a") as it:
            it.config = replace(it.config, hold_socket=str(it.folder / "nobody.sock"))
            holds = Held(it)
            await holds.publish()
            code, details, request_id = await answer(call(it, ("request_id", "r1"), wait_for_ready=True))
            assert (code, details, request_id) == ("UNAVAILABLE", "No replica of application 'one' is ready.", "r1")

    run(scenario())
