"""Unix sockets that only this user can connect to, for servers that can't ask who connects.

``grpc.aio`` accepts its connections itself, and no handler learns which process is at the other end. So the kernel
checks when another user connects: that needs write permission on the socket's file (unix(7)).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Mode of a socket's file.
PRIVATE = 0o600


@contextmanager
def private_socket(path: str) -> Iterator[str]:
    """Yield the path at which a server has to bind and listen; the socket is then moved to its own path.

    A socket gets its mode after the bind only, and the umask belongs to all threads of a process. So it is bound in a
    new folder that nobody else can enter, whatever the mode of the folder around it. The move replaces what an earlier
    process has left at the path, and a server that stops later does not remove it.

    Args:
        path: The socket's path.

    Raises:
        OSError: The folder of the path can't be written to.

    Example:
        >>> import socket
        >>> with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        ...     with private_socket(f"{folder}/s") as unfinished:
        ...         server.bind(unfinished)
        ...     oct(os.stat(f"{folder}/s").st_mode & 0o777)
        '0o600'
    """
    with tempfile.TemporaryDirectory(prefix="", dir=Path(path).parent) as folder:
        unfinished = os.path.join(folder, "s")
        yield unfinished
        os.chmod(unfinished, PRIVATE)
        os.replace(unfinished, path)
