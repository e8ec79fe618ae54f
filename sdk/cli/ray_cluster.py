"""Connection of a command to its Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from sdk.cli.cluster_origin import ClusterOrigin, origin_of
from sdk.cli.ray_reaper import RayReaper
from sdk.errors import OptionsError


class RunCluster:
    """The cluster of a command.

    Args:
        cleanup: The callbacks at the end of the command.
        reaper: Ends the rest of a local Ray.
        origin: As below.

    Attributes:
        address: Address of its GCS.
        log_folder: Where Ray Serve's logs are on this node.
        dashboard: URL of Ray's dashboard; empty without one.
        origin: Who started it; None if the command did.
    """

    def __init__(self, cleanup: contextlib.ExitStack, reaper: RayReaper, origin: ClusterOrigin | None) -> None:
        from sdk._serve import ray_connection

        self._cleanup, self._reaper, self.origin = cleanup, reaper, origin
        self.address, self.log_folder = ray_connection.gcs_address(), ray_connection.log_folder()
        self.dashboard = ray_connection.dashboard_url()

    @property
    def is_local(self) -> bool:
        """True if the command started it."""
        return self.origin is None

    def abandon(self) -> NoReturn:
        """End the command: the cluster has gone, and everything that Ray would do now waits for it."""
        self._cleanup.pop_all()
        self._reaper.reap()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def connect_or_start(
    address: str | None,
    cleanup: contextlib.ExitStack,
    report: Callable[[str], None],
    check_before_start: Callable[[int], None],
    *,
    num_cpus: int | None = None,
    has_dashboard: bool = False,
    has_spare_room: bool = False,
    shows_output: bool = False,
) -> RunCluster:
    """Connect to a cluster, or start a local Ray that ends with the command.

    Args:
        address: The cluster's address, or ``"local"`` for a new one; None for ``RAY_ADDRESS``, then for one that runs
            on this machine, then for a new one.
        cleanup: Receives the callbacks that undo this at the end.
        report: Receives each line of progress.
        check_before_start: Called before a local Ray is started, which takes seconds, with the number of CPUs that it
            will offer; raises an error to prevent that.
        num_cpus: CPUs that a local Ray offers; None for those of the machine.
        has_dashboard: Whether a local Ray has Ray's dashboard.
        has_spare_room: Whether a local Ray counts each CPU twice, so that two versions fit at the same time.
        shows_output: Whether Ray brings the output of all processes to this one.

    Raises:
        ClusterError: The cluster named by ``address`` or ``RAY_ADDRESS`` can't be reached, or Ray can't be started.
        OptionsError: An option of a local Ray is given, and a cluster runs.
    """
    import ray

    from sdk._serve import ray_connection

    reaper = RayReaper()
    cleanup.callback(reaper.reap)
    cleanup.callback(ray.shutdown)
    cleanup.callback(report, "Shutting down Ray …")  # visible if the start is interrupted
    found = ray_connection.find_cluster(address)
    if found is not None and found != "local":
        for option, is_given in (("--num-cpus", num_cpus is not None), ("--dashboard", has_dashboard)):
            if is_given:
                raise OptionsError(
                    f"{option} is for a Ray that this command starts, and one runs at {found}; add --address local."
                )
        report(f"Connecting to Ray at {found} …")
        return RunCluster(cleanup, reaper, connect(address, shows_output=shows_output))
    offered = (2 if has_spare_room else 1) * (num_cpus or os.cpu_count() or 1)
    check_before_start(offered)
    report("Starting a local Ray …")
    reaper.start()
    try:
        with _without_token_notice(), _sigterm_interrupts():
            ray_connection.start_local(
                num_cpus=offered,
                include_dashboard=has_dashboard,
                log_to_driver=shows_output,
                logging_level=logging.WARNING,
            )
    finally:
        reaper.stop_tracking()  # also if the start failed after it started some processes
    return RunCluster(cleanup, reaper, None)


def connect(address: str | None, *, shows_output: bool = False) -> ClusterOrigin:
    """Connect to a running cluster. The workers of this command also import from the folders in its ``PYTHONPATH``.

    Args:
        address: The cluster's address; None for ``RAY_ADDRESS``, then for one that runs on this machine.
        shows_output: As for :func:`connect_or_start`.

    Returns:
        Who started the cluster.

    Raises:
        ClusterError: No cluster runs, or it can't be reached.
    """
    from sdk._serve import ray_connection

    with _without_token_notice(), _sigterm_interrupts():
        ray_connection.connect(
            address,
            log_to_driver=shows_output,
            logging_level=logging.WARNING,
            job_config=ray_connection.job_with_import_path(),
        )
    return origin_of(
        ray_connection.gcs_address(),
        ray_connection.count_nodes(),
        is_named=ray_connection.named_address(address) is not None,
        is_newest=ray_connection.gcs_address() == ray_connection.newest_address(),
    )


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Hide the progress logs of Ray and Ray Serve in this process; show their warnings."""
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yield


@contextlib.contextmanager
def _without_token_notice() -> Iterator[None]:
    """Hide Ray's warning that it uses a token, which is intended."""
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
    """Turn SIGTERM into KeyboardInterrupt if Ray has installed its own handler, which exits with the signal number."""
    try:
        yield
    except SystemExit as exited:
        if exited.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None
