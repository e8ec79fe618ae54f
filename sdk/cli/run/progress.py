"""What ``sdk run`` tells while it waits for applications to start."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from sdk.errors import ClusterError

_LOOK_S = 1.0


@contextlib.contextmanager
def tell_what_it_waits_for(names: Iterable[str], tell: Callable[[str], None]) -> Iterator[None]:
    """Pass on what Ray Serve says of applications that take long to start, such as that no node has room for them.

    Args:
        names: The applications.
        tell: Gets each message, once.
    """
    from sdk._serve.failures import messages_of

    over = threading.Event()

    def watch() -> None:
        told: set[str] = set()
        while not over.wait(_LOOK_S):
            with contextlib.suppress(ClusterError):
                for message in {message for name in names for message in messages_of(name)} - told:
                    told.add(message)
                    tell(message)

    watcher = threading.Thread(target=watch, name="tell-what-it-waits-for", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def failure(name: str, reason: str) -> str:
    """Return the message that an application has failed to start."""
    return f"error: Application {name!r} failed to start: {reason}"
