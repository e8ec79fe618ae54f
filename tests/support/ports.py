"""TCP ports that stay free until someone listens on them."""

from __future__ import annotations

import atexit
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

# Kept open as long as this process runs.
_claims = contextlib.ExitStack()
atexit.register(_claims.close)


def _ports() -> Iterator[int]:
    """The ports that the kernel gives to nobody: neither to an outgoing connection nor to who asks for any port."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    # Ray's workers listen on 10002 to 19999.
    yield from range(20_000, low)
    yield from range(high + 1, 65_536)


def free_port() -> int:
    """A TCP port that stays free until the test listens on it: no other process of the tests gets it, too."""
    for port in _ports():
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0sdk-tests-port-{port}")  # abstract: the kernel forgets it when this process ends
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.enter_context(claim)
        return port
    raise OSError("every port is taken")
