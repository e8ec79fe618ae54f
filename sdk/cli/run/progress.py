"""Messages of ``sdk run`` while applications start."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from codegen.console import error_line
from sdk.errors import ClusterError

_POLL_S = 0.25


@contextlib.contextmanager
def report_pending(names: Iterable[str], report: Callable[[str], None]) -> Iterator[None]:
    """Report why applications do not start yet: their constructor raises, or no node has enough resources.

    Args:
        names: The applications.
        report: Receives each message once, whatever the number of tries that are left.
    """
    from sdk._serve.failures import messages_of

    over = threading.Event()

    def watch() -> None:
        reported: set[str] = set()
        while not over.wait(_POLL_S):
            with contextlib.suppress(ClusterError):
                for reason, message in [each for name in names for each in messages_of(name).items()]:
                    if reason not in reported:
                        reported.add(reason)
                        report(message)

    watcher = threading.Thread(target=watch, name="report-pending", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def failure(name: str, reason: str) -> str:
    """Return the error message for an application that failed to start."""
    return error_line(f"Application {name!r} failed to start: {reason}")
