"""Envoy's supervisor, with sleeping processes as Ray's node and as Envoy."""

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
from sdk._ingress.envoy.adoption import (
    SupervisedEnvoy,
    adopt,
    find_running_envoy,
    start_envoy,
)
from sdk._ingress.envoy.supervisor import IdleDeadline, RestartBackoff, SupervisorConfig, process_start_time
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


def config(node: subprocess.Popen[bytes], command: list[str] = SLEEP, idle_timeout_s: float = 30.0) -> SupervisorConfig:
    began = process_start_time(node.pid)
    assert began is not None
    return SupervisorConfig("digest", command, node.pid, began, idle_timeout_s)


async def started(folder: Path, config: SupervisorConfig) -> SupervisedEnvoy:
    folder.mkdir(mode=0o700)
    envoy = await start_envoy(folder, config)
    if not envoy.state.envoy_pid:
        await next_state(envoy)
    return envoy


async def next_state(envoy: SupervisedEnvoy) -> None:
    await asyncio.wait_for(envoy.states().__anext__(), PATIENCE_S)


def ignores_sigterm(pid: int) -> bool:
    """Return whether a process ignores SIGTERM (SigIgn in proc(5)). One that has just started does not yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_envoy_outlives_the_actor_and_the_next_one_finds_it(folder: Path, node: subprocess.Popen[bytes]) -> None:
    first = await started(folder, config(node))
    first.disconnect()
    second = await find_running_envoy(folder)
    assert second is not None
    assert second.is_own
    assert second.state == first.state
    assert is_alive(second.state.envoy_pid)
    await second.stop()
    assert not is_alive(first.state.envoy_pid)
    assert not folder.exists()


async def test_only_an_envoy_that_would_be_started_now_is_adopted(folder: Path, node: subprocess.Popen[bytes]) -> None:
    assert await adopt(folder, config(node)) is None, "no Envoy is running"
    first = await started(folder, config(node))
    first.disconnect()
    same = await adopt(folder, config(node))
    assert same is not None
    assert same.state.envoy_pid == first.state.envoy_pid
    same.disconnect()
    assert await adopt(folder, config(node)._replace(digest="another")) is None
    assert not is_alive(first.state.envoy_pid)
    assert not folder.exists()


async def test_the_supervisor_is_a_daemon_in_a_separate_session(folder: Path, node: subprocess.Popen[bytes]) -> None:
    before = workers(os.getpid(), sys.executable)
    envoy = await started(folder, config(node))
    supervisor = os.getsid(envoy.state.envoy_pid)
    assert supervisor not in (os.getsid(0), envoy.state.envoy_pid)
    assert node.pid in before
    assert workers(os.getpid(), sys.executable) == before
    await envoy.stop()


async def test_envoy_and_folder_are_removed_if_the_node_is_killed(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, config(node, [*SLEEP[:-1], STUBBORN]))
    await until(lambda: ignores_sigterm(envoy.state.envoy_pid))
    node.kill()
    await until(lambda: not is_alive(envoy.state.envoy_pid) and not folder.exists())
    envoy.disconnect()


async def test_envoy_and_folder_are_removed_if_no_actor_connects(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, config(node, idle_timeout_s=2.0))
    await asyncio.sleep(2.5)
    assert is_alive(envoy.state.envoy_pid), "an actor is connected"
    envoy.disconnect()
    await until(lambda: not is_alive(envoy.state.envoy_pid) and not folder.exists())


async def test_a_killed_envoy_is_started_again_and_reported(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, config(node))
    before = envoy.state.envoy_pid
    os.kill(before, signal.SIGKILL)
    seen = []
    async for state in envoy.states():
        seen.append((bool(state.envoy_pid), state.exit_code, state.starts))
        if state.envoy_pid:
            break
    assert seen == [(False, -9, 1), (True, -9, 2)]
    assert is_alive(envoy.state.envoy_pid)
    await envoy.stop()


async def test_a_killed_supervisor_takes_envoy_with_it(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, config(node))
    os.kill(os.getsid(envoy.state.envoy_pid), signal.SIGKILL)
    assert [state async for state in envoy.states()] == []
    envoy.disconnect()
    await until(lambda: not is_alive(envoy.state.envoy_pid))
    assert await find_running_envoy(folder) is None
    again = await start_envoy(folder, config(node))
    await again.stop()


async def test_an_envoy_that_ignores_sigterm_is_killed(folder: Path, node: subprocess.Popen[bytes]) -> None:
    envoy = await started(folder, config(node, [*SLEEP[:-1], STUBBORN]))
    await until(lambda: ignores_sigterm(envoy.state.envoy_pid))
    await envoy.stop()
    assert not is_alive(envoy.state.envoy_pid)


async def test_a_supervisor_that_can_not_start_gives_the_reason(folder: Path, node: subprocess.Popen[bytes]) -> None:
    folder.mkdir(mode=0o700)
    (folder / "supervisor.json").mkdir()
    with pytest.raises(OSError, match="supervisor"):
        await start_envoy(folder, config(node))


async def test_the_supervisor_does_not_start_if_the_node_has_ended(folder: Path, node: subprocess.Popen[bytes]) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(OSError, match=r"did not start.*Ray's node has ended"):
        await start_envoy(folder, config(node)._replace(node_start=1))


async def test_a_folder_that_others_can_enter_is_rejected(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(IngressError, match="private"):
        await find_running_envoy(folder)


def test_the_digest_depends_on_command_bootstrap_and_options() -> None:
    command = [sys.executable, "x"]
    others = [(command, b"other", "port=1"), (command, b"boot", "port=2"), ([*command, "y"], b"boot", "port=1")]
    configs = [adoption.make_config(command, b"boot", "port=1"), *(adoption.make_config(*other) for other in others)]
    assert len({config.digest for config in configs}) == 4
    assert adoption.make_config(command, b"boot", "port=1") == configs[0]


def test_the_idle_deadline_starts_when_the_last_actor_disconnects() -> None:
    deadline = IdleDeadline(30.0, now=100.0)
    assert deadline.at == 130
    deadline.connected()
    deadline.connected()
    deadline.disconnected(now=110.0)
    assert deadline.at is None, "another actor is there"
    deadline.disconnected(now=111.0)
    assert deadline.at == 141


def test_restarts_of_an_envoy_that_keeps_dying_back_off() -> None:
    backoff = RestartBackoff()
    assert backoff.delay(lived_s=3600) == 0
    delays = [backoff.delay(lived_s=0.01) for _ in range(6)]
    assert delays == sorted(delays)
    assert delays[-1] == 1
    assert backoff.delay(lived_s=3600) == 0
