"""Messages between the server programs and the benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator


def report(port: int, processes: dict[str, str]) -> None:
    """Report to the benchmark that the server listens.

    Args:
        port: Its port on 127.0.0.1.
        processes: Regular expressions for the command lines of the processes whose CPU time is the server's, by
            role. Only this process and those below it count.
    """
    print(json.dumps({"port": port, "processes": processes}), flush=True)


def commands() -> Iterator[dict[str, int]]:
    """Yield the benchmark's commands until it closes this program's standard input."""
    for line in sys.stdin:
        yield json.loads(line)
