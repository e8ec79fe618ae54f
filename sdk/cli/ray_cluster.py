"""How commands find their Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator

from sdk.cli.ray_reaper import Guard
from sdk.errors import ClusterError

_REACH_S = 5.0


def connect_or_start(
    address: str | None,
    cleanup: contextlib.ExitStack,
    report: Callable[[str], None],
    check_before_start: Callable[[], None],
    *,
    has_spare_room: bool = False,
) -> bool:
    """Connect to a cluster, or start a local Ray that ends with the command.

    Args:
        address: The cluster's address, or ``"local"`` for a new one; None for ``RAY_ADDRESS``, then for one that runs
            on this machine, then for a new one.
        cleanup: Gets what must be undone at the end.
        report: Gets a line of progress.
        check_before_start: Called before a local Ray is started, which takes seconds; raises what speaks against it.
        has_spare_room: Whether a local Ray counts each CPU twice, so that a second version fits beside the first.

    Returns:
        Whether a local Ray was started.

    Raises:
        ClusterError: The cluster named by ``address`` or ``RAY_ADDRESS`` can't be reached, or Ray can't be started.
    """
    import ray

    guard = Guard()
    cleanup.callback(guard.finish)
    cleanup.callback(ray.shutdown)
    cleanup.callback(report, "Ending …")  # seen when the start is interrupted
    named = address or os.environ.get("RAY_ADDRESS")
    if named != "local":
        report(f"Connecting to Ray at {named} …" if named else "Looking for Ray …")
        try:
            connect(address)
            return False
        except ClusterError:
            if named:
                raise
    check_before_start()
    report("Starting a local Ray …")
    guard.begin()
    try:
        with _sigterm_interrupts():
            ray.init(
                address="local",
                num_cpus=2 * (os.cpu_count() or 1) if has_spare_room else None,
                include_dashboard=False,
                logging_level=logging.WARNING,
            )
    except (RuntimeError, OSError, ValueError) as error:
        raise ClusterError(f"A local Ray can't be started: {_one_line(error)}") from None
    finally:
        guard.watch()  # also when the start failed amid its processes
    return True


def connect(address: str | None, *, tells_path: bool = True) -> None:
    """Connect to a cluster that runs.

    Args:
        address: The cluster's address; None for ``RAY_ADDRESS``, then for one that runs on this machine.
        tells_path: Whether Ray's processes must be told where our modules are.

    Raises:
        ClusterError: No cluster runs, or it can't be reached.
    """
    import ray

    named = address or os.environ.get("RAY_ADDRESS")
    if named and named != "auto":
        _check_reachable(named)
    # Ray Serve's controller may belong to another program that was started elsewhere: say where our modules are.
    path = os.pathsep.join(part for part in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if part)
    try:
        with _sigterm_interrupts():
            ray.init(
                address=named or "auto",
                log_to_driver=False,
                logging_level=logging.WARNING,
                runtime_env={"env_vars": {"PYTHONPATH": path}} if tells_path else None,
            )
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        what = f"Ray at {named} can't be reached" if named else "No Ray cluster runs here"
        raise ClusterError(f"{what}: {_one_line(error)}") from None


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep Ray's and Ray Serve's progress reports out of the view; warnings and the application's output stay."""
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # That a new local Ray wants tokens, which is as it should be, is said as a warning.
    tokens = logging.getLogger("ray._private.authentication.authentication_token_setup")
    tokens.addFilter(_is_problem)
    try:
        yield
    finally:
        tokens.removeFilter(_is_problem)


def _is_problem(record: logging.LogRecord) -> bool:
    return "Token authentication is enabled" not in record.getMessage()


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM a KeyboardInterrupt also where Ray has its own handler already, which exits with the number."""
    try:
        yield
    except SystemExit as ended:
        if ended.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None


def _check_reachable(address: str) -> None:
    """Try the address first: Ray itself tries for a minute, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"{address!r} is no address of a Ray cluster; give HOST:PORT, such as 127.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except OSError as error:
        raise ClusterError(f"Ray at {address} can't be reached: {error.strerror or error}.") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
