"""The reason of an error of the operating system, as messages end with it."""

from __future__ import annotations


def os_reason(error: BaseException | str) -> str:
    r"""Return why something failed, for the end of a message. Some errors have no ``strerror``, or no text at all.

    Args:
        error: An ``OSError``, another error that its neighbour in an ``except`` clause may be, or the reason of a
            ``urllib.error.URLError``, which is one of these or a text.

    Example:
        >>> os_reason(FileNotFoundError(2, "No such file or directory", "a.proto"))
        'no such file or directory'
        >>> os_reason(OSError("no locks on\nthis file system")), os_reason(TimeoutError())
        ('no locks on this file system', 'TimeoutError')
    """
    system: str | None = getattr(error, "strerror", None)
    if system:
        return system[:1].lower() + system[1:]
    return " ".join(str(error).split()) or type(error).__name__
