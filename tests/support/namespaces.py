"""Namespaces: networks that act as machines, and processes apart from the others. Most need root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def machines(count: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Create network namespaces, and remove them at the end.

        Yields:
            The address of this machine on the bridge, and for each namespace its name and address.

        Raises:
    OSError: This process has no permission, or the `ip` command is missing.
    """
    name = f"sdk{os.getpid() % 100_000}"
    subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    made: list[tuple[str, ...]] = []
    try:
        _ip("link", "add", name, "type", "bridge")
        made.append(("link", "del", name))
        _ip("addr", "add", f"{subnet}.1/24", "dev", name)
        _ip("link", "set", name, "up")
        found = []
        for n in range(count):
            namespace, address, outside = f"{name}n{n}", f"{subnet}.{n + 2}", f"{name}v{n}"
            _ip("netns", "add", namespace)
            made.append(("netns", "del", namespace))
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", outside, "master", name, "up")
            for command in (
                ("addr", "add", f"{address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", namespace, *command)
            found.append((namespace, address))
        yield f"{subnet}.1", found
    finally:
        for command in reversed(made):
            _ip(*command)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


#: Runs a command as the first process of a PID namespace without others.
PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def may_make_pid_namespace() -> bool:
    """Return True if this user may make one."""
    has_program = shutil.which("unshare") is not None
    return has_program and subprocess.run([*PID_NAMESPACE, "true"], capture_output=True).returncode == 0
