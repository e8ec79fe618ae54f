"""Deployments behind wire servers on this event loop, and the handles to them, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import grpc
import pytest

from sdk._channel import target as targets
from sdk._channel.feed import Address, State
from sdk._contract.implementations import generated_bases
from sdk._wire.call import Call
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.context import enter_call
from tests.support.wire_rig import FakeTransport

_numbers = count(1)


class NamedHandle:
    """The parts of Ray Serve's handle that name its deployment."""

    def __init__(self, deployment: str, application: str = "app") -> None:
        self.app_name, self.deployment_name = application, deployment

    def options(self, **_: Any) -> Any:
        raise AssertionError("a call went to Ray's handle")


class Deployment:
    """One deployment: its replicas, and what its callers know of them."""

    def __init__(self) -> None:
        self.handle = NamedHandle(f"D{next(_numbers)}")
        self.replicas: list[WireServer] = []
        self.state = State(self.handle.app_name, self.handle.deployment_name, True)

    async def add(
        self, implementation: Any, compression: grpc.Compression | None = None, **settings: Any
    ) -> WireServer:
        bases = generated_bases(type(implementation))
        bindings = [each for base in bases for each in vars(base)["__grpc_shim__"].bindings(implementation)]
        server = WireServer(bindings, replace(WireSettings(), **settings), compression=compression)
        name = await server.listen_locally()
        server.address = Address(name, "127.0.0.1", 0, "", name)  # type: ignore[attr-defined]
        self.replicas.append(server)
        self.publish()
        return server

    def remove(self, server: WireServer) -> None:
        self.replicas.remove(server)
        self.publish()

    def publish(self) -> None:
        """Send the callers of this loop the replicas."""
        addresses = tuple(server.address for server in self.replicas)  # type: ignore[attr-defined]
        self.state = self.state._replace(addresses=addresses)
        known = targets._by_loop.get(asyncio.get_running_loop())
        if known is not None and (self.state.application, self.state.deployment) in known._targets:
            known._targets[self.state.application, self.state.deployment].apply(self.state)


@asynccontextmanager
async def deployment(*implementations: Any, **settings: Any) -> AsyncIterator[Deployment]:
    """Serve implementations as the replicas of one deployment, until the block ends."""
    served = Deployment()
    states = {id(served.handle): served}
    with pytest.MonkeyPatch.context() as patch:
        before = targets.local_lookup

        def lookup(handle: Any) -> State | None:
            found = states.get(id(handle))
            return found.state if found is not None else before and before(handle)

        patch.setattr(targets, "local_lookup", lookup)
        for implementation in implementations:
            await served.add(implementation, **settings)
        try:
            yield served
        finally:
            for server in served.replicas:
                await server.drain(quiet_s=0, grace_s=0, linger_s=1)


@contextmanager
def outer_call(*headers: tuple[str, str], timeout: float | None = None) -> Iterator[Call]:
    """Run the block in a client's call."""
    server = WireServer([])
    server.host.attach(asyncio.get_running_loop())
    pairs = [(key.encode(), value.encode()) for key, value in headers]
    call = Call(server.host, FakeTransport(), None, b"/outer.Outer/Call", pairs, dict(pairs), lambda _: None)
    if timeout is not None:
        call._set_deadline(b"%dm" % (timeout * 1000), None)
    enter_call(call)
    try:
        yield call
    finally:
        enter_call(None)
        call.finish_with(0, "")
