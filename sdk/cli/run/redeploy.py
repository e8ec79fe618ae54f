"""The program that ``sdk run --reload`` starts to deploy a new version: ``python -m sdk.cli.run.redeploy``.

Each version has a separate process, since Python can't unload a module, nor protobuf a file. The process first imports
slow modules that are not the user's, and waits: so it can be started in advance. Then it reads a request from one line
of stdin, deploys it, and exits with 0, or with 1 if that failed. It prints its messages on stdout. When stdin ends, it
exits at once: the command that started it has ended, or a newer version has replaced it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """Request to deploy a new version.

    Attributes:
        target: As on the command line of ``sdk run``.
        name: The application's name on the command line, or None.
        address: Address of the Ray cluster.
        is_ours: Whether the command has started that cluster, in the same folder.
        allow_breaking: Whether the update may break clients.
        before: The applications of the previous version.
    """

    target: str
    name: str | None
    address: str
    is_ours: bool
    allow_breaking: bool
    before: tuple[str, ...]

    def dump(self) -> bytes:
        """Return the request as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def load(cls, line: bytes) -> DeployRequest:
        """Return the request from one line of JSON.

        Example:
            >>> request = DeployRequest("app:app", None, "127.0.0.1:6379", True, False, ("default",))
            >>> DeployRequest.load(request.dump()) == request
            True
        """
        fields = json.loads(line)
        return cls(**{**fields, "before": tuple(fields["before"])})


def main() -> int:
    """Wait for a request and deploy it."""
    from sdk.cli.ray_cluster import quiet_logs
    from sdk.cli.run.quick_import import import_quickly

    import_quickly("sdk._serve.config_deploy")  # in advance: it is slow
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    threading.Thread(target=_end_with_command, name="end-with-command", daemon=True).start()
    with quiet_logs():
        return deploy(DeployRequest.load(line))


def deploy(request: DeployRequest) -> int:
    """Import and deploy the target of a request, and wait until it runs or has failed."""
    from codegen.console import error_line
    from sdk._serve.application import CODE_VERSION
    from sdk.cli.ray_cluster import connect
    from sdk.cli.run.progress import failure, report_pending
    from sdk.cli.run.targets import find_target, is_config
    from sdk.errors import SdkError

    os.environ[CODE_VERSION] = uuid.uuid4().hex
    # A cluster of the command has no clients but the user's. Applications of a config file are not compared anyway.
    allow_breaking = request.allow_breaking or (request.is_ours and not is_config(request.target))
    try:
        target = find_target(request.target, request.name, allow_breaking)
        connect(request.address)
        with report_pending(target.names, _print):
            failed = target.deploy_again(request.before, lambda name, reason: _print(failure(name, reason)))
    except SdkError as error:
        _print(error_line(str(error)))
        return 1
    return 1 if failed else 0


def _print(text: str) -> None:
    print(text, flush=True)


def _end_with_command() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through the buffer, which Python closes at exit
        pass
    # Not a graceful exit: the main thread may be waiting for a replica that never starts.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
