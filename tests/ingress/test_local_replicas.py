"""Replicas of a node that die are noticed by their processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sdk._ingress.local_replicas import LocalReplicas
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from tests.support.loops import PATIENCE_S

_LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0" + sys.argv[1])
listener.listen(8)
print("listening", flush=True)
sys.stdin.read()
"""


@dataclass
class _Replica:
    endpoint: Endpoint
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def replicas() -> Iterator[list[_Replica]]:
    started = []
    for number in range(2):
        name = f"test-{uuid.uuid4().hex}"
        process = subprocess.Popen([sys.executable, "-c", _LISTEN, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        started.append(_Replica(Endpoint(f"r{number}", "10.0.0.1", 4000, "n1", name), process))
    yield started
    for replica in started:
        replica.kill()
        assert replica.process.stdin is not None
        assert replica.process.stdout is not None
        replica.process.stdin.close()
        replica.process.stdout.close()


def table(*endpoints: Endpoint, inner: bool = False) -> Snapshot:
    applications = (Application("app", (Deployment("Greeter", ("greet.Greeter",), endpoints),)),)
    return Snapshot(1, inner=applications) if inner else Snapshot(1, applications)


async def dead(watched: LocalReplicas) -> set[str]:
    return set(await asyncio.wait_for(watched.wait_dead(), PATIENCE_S))


@pytest.mark.parametrize("inner", [False, True])
async def test_a_replica_that_dies_is_noticed_until_the_table_is_without_it(
    replicas: list[_Replica], inner: bool
) -> None:
    first, second = (replica.endpoint for replica in replicas)
    watched = LocalReplicas("n1")
    watched.follow(table(first, second, inner=inner))
    replicas[0].kill()
    assert await dead(watched) == {"r0"}
    watched.follow(table(first, second, inner=inner))  # of a controller that was restarted, for example
    assert await dead(watched) == {"r0"}
    watched.follow(table(second, inner=inner))
    waiting = asyncio.ensure_future(dead(watched))
    await asyncio.sleep(0)
    assert not waiting.done()
    replicas[1].kill()
    assert await waiting == {"r1"}
    watched.stop()


async def test_a_replica_that_is_dead_when_the_table_comes_is_noticed(replicas: list[_Replica]) -> None:
    replicas[0].kill()
    watched = LocalReplicas("n1")
    watched.follow(table(*(replica.endpoint for replica in replicas)))
    assert await dead(watched) == {"r0"}
    watched.stop()


async def test_a_replica_that_has_left_the_table_or_is_of_another_node_is_not_watched(
    replicas: list[_Replica],
) -> None:
    first, second = (replica.endpoint for replica in replicas)
    watched, elsewhere = LocalReplicas("n1"), LocalReplicas("n2")
    elsewhere.follow(table(first))
    watched.follow(table(first, second))
    watched.follow(table(second))
    replicas[0].kill()
    replicas[1].kill()
    assert await dead(watched) == {"r1"}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(elsewhere.wait_dead(), 0)
    watched.stop()
