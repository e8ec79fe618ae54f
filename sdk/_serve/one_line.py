"""Texts of errors, for messages of one line."""

from __future__ import annotations


def one_line(error: object) -> str:
    r"""Return the text of an error in one line.

    Example:
        >>> one_line(OSError("no  such\nfile"))
        'no such file'
    """
    return " ".join(str(error).split())
