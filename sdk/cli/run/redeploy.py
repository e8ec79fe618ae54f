"""The program that ``sdk run --reload`` starts to deploy a new version: ``python -m sdk.cli.run.redeploy``.

A process of its own for each version, since Python can't forget a module, nor protobuf a file. It imports what takes
long and is not the user's, and waits: so one can be there before it is needed. Then it reads one line from its standard
input, deploys what that says, and exits with 0, or 1 when that failed. What it has to say goes to its standard output.
It ends at once when its standard input ends, with the command that started it or because a newer version has come.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """What to deploy.

    Attributes:
        target: As on the command line of ``sdk run``.
        name: The application's name, when it was given.
        address: The Ray cluster.
        is_ours: Whether that cluster was started by the command, in the same folder.
        allow_breaking: Whether clients may break.
        before: The applications that the version before had.
    """

    target: str
    name: str | None
    address: str
    is_ours: bool
    allow_breaking: bool
    before: tuple[str, ...]

    def dump(self) -> bytes:
        """Return the order as the line that the program reads."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def load(cls, line: bytes) -> Order:
        """Return the order of a line.

        Example:
            >>> order = Order("app:app", None, "127.0.0.1:6379", True, False, ("default",))
            >>> Order.load(order.dump()) == order
            True
        """
        fields = json.loads(line)
        return cls(**{**fields, "before": tuple(fields["before"])})


def main() -> int:
    """Wait for the order, and carry it out."""
    import sdk._serve.config_deploy  # noqa: F401  # ahead: this is what takes long
    from sdk.cli.ray_cluster import quiet_logs

    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    threading.Thread(target=_end_with_command, name="end-with-command", daemon=True).start()
    with quiet_logs():
        return deploy(Order.load(line))


def deploy(order: Order) -> int:
    """Import and deploy the target of an order, and wait until it runs or has failed."""
    from sdk._serve.application import CODE_VERSION
    from sdk.cli.ray_cluster import connect
    from sdk.cli.run.progress import failure, tell_what_it_waits_for
    from sdk.cli.run.targets import find_served, is_config
    from sdk.errors import SdkError

    os.environ[CODE_VERSION] = uuid.uuid4().hex
    # A Ray of the command's own has no clients but the user's. What a config names is not compared anyway.
    allow_breaking = order.allow_breaking or (order.is_ours and not is_config(order.target))
    try:
        served = find_served(order.target, order.name, allow_breaking)
        connect(order.address, tells_path=not order.is_ours)
        with tell_what_it_waits_for(served.names, _say):
            failed = served.deploy_again(order.before, lambda name, reason: _say(failure(name, reason)))
    except SdkError as error:
        _say(f"error: {error}")
        return 1
    return 1 if failed else 0


def _say(text: str) -> None:
    print(text, flush=True)


def _end_with_command() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through its buffer, which Python closes when it ends
        pass
    # Not an orderly end: the main thread may be waiting for a replica that never starts.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
