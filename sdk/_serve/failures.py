"""Extract the reason why an application did not start, in one line, from the traceback in Ray Serve's message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from sdk._contract import locations
from sdk.errors import ClusterError

_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>\S+)', re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def explain(application: str) -> str:
    """Return the reason why Ray Serve could not start an application.

    Args:
        application: Its name.

    Returns:
        The exception of each failed deployment, with its file and line; Ray Serve's own message if it has no
        traceback; empty if Ray Serve does not know the application.
    """
    overview = serve.status().applications.get(application)
    if overview is None:
        return ""
    failed = _lines(overview, lambda d: "FAILED" in d.status.value or "UNHEALTHY" in d.status.value)
    return "; ".join(failed) or raised_in(overview.message)


def messages_of(application: str) -> list[str]:
    """Return Ray Serve's messages about the deployments of an application that is being deployed, a line each.

    Args:
        application: Its name.

    Raises:
        ClusterError: Ray Serve does not answer.
    """
    try:
        overview = serve.status().applications.get(application)
    except (RayServeException, ray.exceptions.RayError) as error:
        raise ClusterError(f"Ray Serve failed: {error}") from error
    return [] if overview is None else _lines(overview, lambda deployment: bool(deployment.message))


def raised_in(message: str) -> str:
    r"""Return the exception in a message of Ray Serve, with its file and line.

    Args:
        message: Any message; a traceback in it is reduced to its last frame and exception.

    Example:
        >>> raised_in('Traceback (most recent call last):\n  File "/a/app.py", line 3, in f\nOSError: no file')
        'OSError: no file (app.py:3, in f)'
        >>> raised_in("The deployment  was deleted.")
        'The deployment was deleted.'
    """
    message = _COLOUR.sub("", message)
    _, found, last = message.rpartition(_TRACEBACK)
    frames = list(_FRAME.finditer(last))
    if not found or not frames:
        return one_line(message)
    # After the last frame come its source line and markers, indented, and then the exception, which is not.
    raised = [line for line in last[frames[-1].end() :].splitlines() if line and not line.startswith(" ")]
    where = locations.format_location(frames[-1]["file"], int(frames[-1]["line"]))
    return f"{' '.join(' '.join(raised).split())} ({where}, in {frames[-1]['function']})"


def one_line(error: object) -> str:
    r"""Return the text of an error in one line.

    Example:
        >>> one_line(OSError("no  such\nfile"))
        'no such file'
    """
    return " ".join(str(error).split())


def _lines(overview: Any, is_wanted: Callable[[Any], bool]) -> list[str]:
    return [
        f"deployment {name}: {raised_in(deployment.message)}"
        for name, deployment in sorted(overview.deployments.items())
        if is_wanted(deployment)
    ]
