"""Output of the applications in ``sdk run``: what their processes print and log, on any node.

Ray's log monitors read the output of each worker process, and publish it to the programs that are connected. This takes
the place of what Ray prints there, which repeats no line that looks like another and includes Ray Serve's controller.
It uses private names of Ray, checked with Ray 2.60.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_HANDLER, _RAYS_HANDLER = "sdk-run", "ray_print_logs"
_REPLICA = "ServeReplica:"
# Their lines belong to no application. The applications' states and failures are reported elsewhere.
_RAYS_OWN = frozenset({"ServeController", "ProxyActor", ""})


@contextmanager
def show_output(applications: Collection[str], show: Callable[[str, bool], None], *, is_local: bool) -> Iterator[None]:
    """Show the output of applications. The process is connected to Ray with ``log_to_driver``.

    Args:
        applications: Their names; may change meanwhile.
        show: Receives each line, and whether it was written to stderr; called in a thread of Ray.
        is_local: Whether the cluster is that of the command: then the output of all its tasks and actors is shown.
    """
    from ray._private import worker
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    def handle(batch: Mapping[str, Any]) -> None:
        for line in lines_of(batch, applications, is_local=is_local):
            show(line, bool(batch["is_err"]))

    dispatcher.remove_handler(_RAYS_HANDLER)
    # Replicas belong to the program that started Ray Serve.
    worker.global_worker._filter_logs_by_job = False
    dispatcher.add_handler(_HANDLER, handle)
    try:
        yield
    finally:
        dispatcher.remove_handler(_HANDLER)


def lines_of(batch: Mapping[str, Any], applications: Collection[str], *, is_local: bool) -> list[str]:
    r"""Return the lines to show of a batch of Ray's log monitor, with their application, deployment and process.

    Args:
        batch: Lines that one process wrote.
        applications: Names of the applications to show.
        is_local: Whether to show other tasks and actors too.

    Example:
        >>> batch = {"actor_name": "ServeReplica:shop:Till", "pid": 7, "lines": ["one apple"]}
        >>> lines_of(batch, ["shop"], is_local=False)
        ['(shop:Till pid=7) one apple']
        >>> lines_of(batch, ["library"], is_local=True)
        []
    """
    name = batch["actor_name"] or batch.get("task_name") or ""
    if name.startswith(_REPLICA):
        name = name.removeprefix(_REPLICA)
        if name.partition(":")[0] not in applications:
            return []
    elif not is_local or name in _RAYS_OWN:
        return []
    return [f"({name} pid={batch['pid']}) {line}" for line in batch["lines"]]
