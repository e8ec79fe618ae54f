"""A real Envoy that is stopped, so that only SIGKILL ends it, ends with the process that started it.

The kernel kills it (``PR_SET_PDEATHSIG``). An Envoy with hot restart would replace that signal by SIGTERM when it
starts: we run it without.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdk._ingress.envoy.process import envoy_command, find_envoy
from sdk._xds.bootstrap import build_bootstrap
from tests.ingress.envoy.test_supervisor import config, started
from tests.support.processes import is_alive
from tests.support.wire_rig import until

# Starts Envoy as the test server does, prints its process id, and waits.
TEST_SERVER = """
import sys, time
from pathlib import Path
from sdk._ingress.envoy.process import EnvoyProcess, find_envoy
folder = Path(sys.argv[1])
print(EnvoyProcess(find_envoy(), folder / "bootstrap.pb", folder / "envoy.log", 1).pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def files() -> Iterator[Path]:
    """A folder with Envoy's bootstrap file."""
    with tempfile.TemporaryDirectory(prefix="sdk-t-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        bootstrap = build_bootstrap(
            node_id="t", ads_socket=str(folder / "ads.sock"), admin_socket=str(folder / "admin.sock")
        )
        (folder / "bootstrap.pb").write_bytes(bootstrap.SerializeToString())
        yield folder


async def stop_when_it_runs(envoy: int, files: Path) -> None:
    """Stop Envoy after its start, when it has set all that it sets for its process."""
    await until((files / "admin.sock").exists)
    os.kill(envoy, signal.SIGSTOP)
    await until(lambda: "\nState:\tT" in Path(f"/proc/{envoy}/status").read_text())


async def test_a_stopped_envoy_ends_with_its_supervisor(files: Path) -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]) as node:
        command = envoy_command(find_envoy(), files / "bootstrap.pb", files / "envoy.log", 1)
        envoy = await started(files / "p", config(node, command))
        await stop_when_it_runs(envoy.state.envoy_pid, files)
        os.kill(os.getsid(envoy.state.envoy_pid), signal.SIGKILL)
        await until(lambda: not is_alive(envoy.state.envoy_pid))
        assert [state async for state in envoy.states()] == []
        envoy.disconnect()
        node.kill()


async def test_a_stopped_envoy_ends_with_the_process_of_a_test(files: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TEST_SERVER, str(files)], stdout=subprocess.PIPE, text=True
    ) as test_process:
        assert test_process.stdout is not None
        envoy = int(await asyncio.to_thread(test_process.stdout.readline))
        await stop_when_it_runs(envoy, files)
        test_process.kill()
        await until(lambda: not is_alive(envoy))
