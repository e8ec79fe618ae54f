"""Ends what Ray Serve's ``@serve.batch`` keeps, for applications in this process: with a replica its process ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def end_batches(queues: Iterable[Any]) -> None:
    """End batch queues, on the event loop that they run on.

    A queue that is dropped later would make an event loop to end its task on, and leave that open, for a
    ``ResourceWarning`` amid some other test.

    Args:
        queues: Those that gather the calls of one replica.
    """
    for queue in queues:
        if queue._handle_batch_task is not None:
            queue._handle_batch_task.cancel()
            queue._handle_batch_task = None
