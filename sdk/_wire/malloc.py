"""What a replica does with memory that it has freed: it keeps some, for the next message.

The C library gives freed memory back to the kernel as soon as there is more than twice the longest block that was ever
freed. A server whose messages have a megabyte then gets the same pages over and over again, and each page is cleared by
the kernel and costs a fault: a third of the replica's time for such messages, and half of it for longer ones.
"""

from __future__ import annotations

import ctypes
import os
import sys

# mallopt(3): blocks shorter than the first are taken from what was kept; so much may be kept, in each arena. They are
# what glibc sets by itself once a process frees a block of 32 MiB, the longest one that it learns from.
_MMAP_THRESHOLD = 32 << 20
_TRIM_THRESHOLD = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Whoever sets one of these knows better.
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep up to 64 MiB of freed memory for blocks to come, in this process, from now on.

    Returns:
        Whether it will: not without glibc, and not when the environment says how (``MALLOC_TRIM_THRESHOLD_``,
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
