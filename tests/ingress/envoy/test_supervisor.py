"""Envoy's supervisor, with a process that stands for Ray's node and one that stands for Envoy."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdk._ingress.envoy import adoption
from sdk._ingress.envoy.adoption import SupervisedEnvoy, Table, adopt, find, keep_table, kept_table, start
from sdk._ingress.envoy.supervisor import Needed, Plan, Restarts, start_of
from sdk._xds.snapshot import Snapshot
from sdk.errors import IngressError
from tests.support.loops import PATIENCE_S
from tests.support.processes import is_alive, workers

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, and private: as the proxy makes it.
    with tempfile.TemporaryDirectory(prefix="sdk-t-", ignore_cleanup_errors=True) as path:
        yield Path(path, "p")


@pytest.fixture
def node() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def plan(node: subprocess.Popen[bytes], command: list[str] = SLEEP, patience_s: float = 30.0) -> Plan:
    began = start_of(node.pid)
    assert began is not None
    return Plan("digest", command, node.pid, began, patience_s)


async def started(folder: Path, plan: Plan) -> SupervisedEnvoy:
    folder.mkdir(mode=0o700)
    envoy = await start(folder, plan)
    if not envoy.report.envoy_pid:
        await anext_report(envoy)
    return envoy


async def anext_report(envoy: SupervisedEnvoy) -> None:
    await asyncio.wait_for(envoy.reports().__anext__(), PATIENCE_S)


def ignores_sigterm(pid: int) -> bool:
    """Whether a process ignores SIGTERM; one that has just started does not yet (proc(5), SigIgn)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_envoy_outlives_the_actor_and_the_next_one_finds_it(folder: Path, node: subprocess.Popen[bytes]) -> None:
    first = await started(folder, plan(node))
    first.leave()
    second = await find(folder)
    assert second is not None
    assert second.is_ours
    assert second.report == first.report
    assert is_alive(second.report.envoy_pid)
    await second.stop()
    assert not is_alive(first.report.envoy_pid)
    assert not folder.exists()


async def test_only_an_envoy_that_would_be_started_now_is_adopted(folder: Path, node: subprocess.Popen[bytes]) -> None:
    assert await adopt(folder, plan(node)) is None, "there is none"
    first = await started(folder, plan(node))
    first.leave()
    same = await adopt(folder, plan(node))
    assert same is not None
    assert same.report.envoy_pid == first.report.envoy_pid
    same.leave()
    assert await adopt(folder, plan(node)._replace(digest="another")) is None
    assert not is_alive(first.report.envoy_pid)
    assert not folder.exists()


async def test_it_is_nobodys_child_and_in_a_session_of_its_own(folder: Path, node: subprocess.Popen[bytes]) -> None:
    before = workers(os.getpid(), sys.executable)
    envoy = await started(folder, plan(node))
    supervisor = os.getsid(envoy.report.envoy_pid)
    assert supervisor not in (os.getsid(0), envoy.report.envoy_pid)
    assert node.pid in before
    assert workers(os.getpid(), sys.executable) == before
    await envoy.stop()


async def test_nothing_is_left_when_the_node_is_killed(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, plan(node, [*SLEEP[:-1], STUBBORN]))
    await until(lambda: ignores_sigterm(envoy.report.envoy_pid))
    node.kill()
    await until(lambda: not is_alive(envoy.report.envoy_pid) and not folder.exists())
    envoy.leave()


async def test_nothing_is_left_when_no_actor_comes(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, plan(node, patience_s=0.5))
    await asyncio.sleep(1)
    assert is_alive(envoy.report.envoy_pid), "an actor is connected"
    envoy.leave()
    await until(lambda: not is_alive(envoy.report.envoy_pid) and not folder.exists())


async def test_a_killed_envoy_is_started_again_and_reported(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, plan(node))
    before = envoy.report.envoy_pid
    os.kill(before, signal.SIGKILL)
    seen = []
    async for report in envoy.reports():
        seen.append((bool(report.envoy_pid), report.exit_code, report.starts))
        if report.envoy_pid:
            break
    assert seen == [(False, -9, 1), (True, -9, 2)]
    assert is_alive(envoy.report.envoy_pid)
    await envoy.stop()


async def test_a_killed_supervisor_takes_envoy_with_it(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, plan(node))
    os.kill(os.getsid(envoy.report.envoy_pid), signal.SIGKILL)
    assert [report async for report in envoy.reports()] == []
    envoy.leave()
    await until(lambda: not is_alive(envoy.report.envoy_pid))
    assert await find(folder) is None
    again = await start(folder, plan(node))
    await again.stop()


async def test_an_envoy_that_does_not_end_by_itself_is_killed(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, plan(node, [*SLEEP[:-1], STUBBORN]))
    await until(lambda: ignores_sigterm(envoy.report.envoy_pid))
    await envoy.stop()
    assert not is_alive(envoy.report.envoy_pid)


async def test_what_cannot_be_started_says_why(folder: Path, node: subprocess.Popen[bytes]) -> None:
    folder.mkdir(mode=0o700)
    (folder / "supervisor.json").mkdir()
    with pytest.raises(OSError, match="supervisor"):
        await start(folder, plan(node))


async def test_a_plan_for_a_node_that_has_ended_starts_nothing(folder: Path, node: subprocess.Popen[bytes]) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(OSError, match=r"did not start.*Ray's node has ended"):
        await start(folder, plan(node)._replace(node_start=1))


async def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(IngressError, match="private"):
        await find(folder)


def test_the_routing_table_is_kept_for_the_next_actor(folder: Path) -> None:
    folder.mkdir()
    assert kept_table(folder) is None
    keep_table(folder, Table(Snapshot(8), Snapshot(7)))
    assert kept_table(folder) == Table(Snapshot(8), Snapshot(7))


def test_a_plan_differs_with_all_that_makes_an_envoy_another() -> None:
    command = [sys.executable, "x"]
    others = [(command, b"other", "port=1"), (command, b"boot", "port=2"), ([*command, "y"], b"boot", "port=1")]
    plans = [adoption.make_plan(command, b"boot", "port=1"), *(adoption.make_plan(*other) for other in others)]
    assert len({plan.digest for plan in plans}) == 4
    assert adoption.make_plan(command, b"boot", "port=1") == plans[0]


def test_envoy_is_needed_while_an_actor_is_connected_and_for_a_while_after() -> None:
    needed = Needed(30.0, now=100.0)
    assert needed.until == 130
    needed.connected()
    needed.connected()
    needed.disconnected(now=110.0)
    assert needed.until is None, "another actor is there"
    needed.disconnected(now=111.0)
    assert needed.until == 141


def test_an_envoy_that_keeps_dying_is_started_ever_more_slowly() -> None:
    restarts = Restarts()
    assert restarts.delay(lived_s=3600) == 0
    delays = [restarts.delay(lived_s=0.01) for _ in range(6)]
    assert delays == sorted(delays)
    assert delays[-1] == 1
    assert restarts.delay(lived_s=3600) == 0
