"""Files with certificates, keys and other secrets that an operator names."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

logger = logging.getLogger("sdk.ingress")

#: Maximum size of such a file, in bytes.
MAX_BYTES = 1 << 20


def read_secret_file(path: str) -> bytes:
    """Return the content of a file. It never waits: a pipe or a device is refused.

    Args:
        path: Its path.

    Raises:
        OSError: The file can't be read.
        ValueError: It is not a regular file, or it is too long.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return Path(path).read_bytes()


def warn_of_mode(path: str, *, is_secret: bool) -> None:
    """Log a warning of a file that others can change, or that others can read although it has secrets.

    Args:
        path: Its path.
        is_secret: Whether nobody else may read it.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & (0o077 if is_secret else 0o022):
        what = "read or change" if is_secret else "change"
        logger.warning("%s has mode %04o: others can %s it; make it 0600", path, mode, what)
