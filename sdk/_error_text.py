"""Texts of errors, for messages of one line."""

from __future__ import annotations


def one_line(error: object) -> str:
    r"""Return a text, such as that of an error, on one line.

    Example:
        >>> one_line(OSError("no  such\nfile"))
        'no such file'
    """
    return " ".join(str(error).split())


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
    return one_line(error) or type(error).__name__
