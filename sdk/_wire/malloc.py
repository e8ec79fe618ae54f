"""Keep some freed memory in the process, for the next message.

The C library gives freed memory back to the kernel as soon as there is more than twice the longest block that was ever
freed. A server with messages of a megabyte then gets the same pages again and again, and each page is cleared by the
kernel and costs a fault: a third of the replica's time for such messages, and half of it for longer ones.
"""

from __future__ import annotations

import ctypes
import os
import sys

# https://man7.org/linux/man-pages/man3/mallopt.3.html: blocks shorter than the first are taken from kept memory; the
# second is the most to keep, in each arena. glibc sets both to these values itself once a process frees a block of
# 32 MiB, the longest one that adapts them.
_MMAP_THRESHOLD = 32 << 20
_TRIM_THRESHOLD = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# An operator who sets one of these has chosen.
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep up to 64 MiB of freed memory for later blocks of this process, from now on.

    Returns:
        False without glibc, and if the environment configures malloc (``MALLOC_TRIM_THRESHOLD_``,
        ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``; mallopt(3)).

    Example:
        >>> keep_freed_memory()  # doctest: +SKIP
        True
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))
