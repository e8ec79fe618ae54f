"""Extract the reason why an application did not start, in one line, from the traceback in Ray Serve's message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ray
from ray.serve.exceptions import RayServeException

from sdk._contract import locations
from sdk._error_text import one_line
from sdk._serve.internals import application_overview
from sdk.errors import ClusterError

_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>\S+)', re.MULTILINE)
# The start of a traceback, but not of one in an exception group, whose lines begin with a bar.
_TRACEBACK = re.compile(r"^[^|\n]*?(?P<group>\+ Exception Group )?Traceback \(most recent call last\):", re.MULTILINE)
# The lines between the exceptions of a group, and the bars before all other lines.
_GROUP_RULE = re.compile(r"^[ |]*\+-.*$", re.MULTILINE)
_GROUP_BAR = re.compile(r"^[ ]*(?:\| ?[ ]*)*\| ", re.MULTILINE)
_MOST_MEMBERS = 3
# How often Ray Serve has started a replica, or will start it again, in its messages before the traceback.
_TRIED = re.compile(r"failed to start (?P<count>\d+) times in a row")
_RETRIES = re.compile(r"Retrying (?P<count>\d+) more time\(s\)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def explain(application: str) -> str:
    """Return the reason why Ray Serve could not start an application.

    Args:
        application: Its name.

    Returns:
        The exception of each failed deployment, with its file and line; Ray Serve's own message if it has no
        traceback; empty if Ray Serve does not know the application.
    """
    overview = application_overview(application)
    if overview is None:
        return ""
    failed = _lines(overview, lambda d: "FAILED" in d.status.value or "UNHEALTHY" in d.status.value)
    return "; ".join(failed) or raised_in(overview.message)


def messages_of(application: str) -> dict[str, str]:
    """Return Ray Serve's messages about the deployments of an application that is being deployed.

    Args:
        application: Its name.

    Returns:
        Deployment and reason → the same in one line, with the number of tries that are left, which changes.

    Raises:
        ClusterError: Ray Serve does not answer.
    """
    try:
        overview = application_overview(application)
    except (RayServeException, ray.exceptions.RayError) as error:
        raise ClusterError(f"Ray Serve failed: {error}") from error
    return {
        f"{name}: {_reason_in(deployment.message)}": f"deployment {name}: {raised_in(deployment.message)}"
        for name, deployment in sorted(overview.deployments.items() if overview is not None else ())
        if deployment.message
    }


def raised_in(message: str) -> str:
    r"""Return the exception in a message of Ray Serve, with its file and line, and the number of tries.

    Args:
        message: Any message; a traceback in it is reduced to its last frame and exception.

    Example:
        >>> raised_in('Traceback (most recent call last):\n  File "/a/app.py", line 3, in f\nOSError: no file')
        'OSError: no file (app.py:3, in f)'
        >>> raised_in("The deployment  was deleted.")
        'The deployment was deleted.'
    """
    reason, traceback = _reason_in(message), _TRACEBACK.search(message)
    tries = _tries_in(message[: traceback.start()]) if traceback is not None else ""
    return f"{reason}; {tries}" if tries else reason


def _tries_in(message: str) -> str:
    """Return how often Ray Serve has tried to start a replica, or tries it again; ``""`` if it does not say."""
    if tried := _TRIED.search(message):
        count = int(tried["count"])
        return "tried once" if count == 1 else f"tried {count} times"
    if retries := _RETRIES.search(message):
        count = int(retries["count"])
        return f"Ray Serve tries it {count} more time{'s' * (count > 1)}" if count else ""
    return ""


def _reason_in(message: str) -> str:
    message = _COLOUR.sub("", message)
    starts = list(_TRACEBACK.finditer(message))
    if not starts:
        return one_line(message)
    traceback = message[starts[-1].end() :]
    if starts[-1]["group"]:
        return _raised_in_group(traceback) or one_line(message)
    return _raised_last(traceback) or one_line(message)


def _raised_in_group(traceback: str) -> str:
    """Return an exception group and the first of its exceptions; ``""`` for an empty one."""
    parts = [_GROUP_BAR.sub("", part) for part in _GROUP_RULE.split(traceback)]
    # An exception that was put into the group, and never raised, has no frame.
    group, *members = [raised for part in parts if (raised := _raised_last(part) or one_line(part))] or [""]
    more = [f"{len(members) - _MOST_MEMBERS} more"] if len(members) > _MOST_MEMBERS else []
    return f"{group}: {'; '.join([*members[:_MOST_MEMBERS], *more])}" if members else group


def _raised_last(last: str) -> str:
    """Return the exception at the end of a traceback, with its file and line; ``""`` for one without frames."""
    frames = list(_FRAME.finditer(last))
    if not frames:
        return ""
    # After the last frame come its source line and markers, indented, and then the exception, which is not.
    raised = [line for line in last[frames[-1].end() :].splitlines() if line and not line.startswith(" ")]
    where = locations.format_location(frames[-1]["file"], int(frames[-1]["line"]))
    return f"{' '.join(' '.join(raised).split())} ({where}, in {frames[-1]['function']})"


def _lines(overview: Any, is_wanted: Callable[[Any], bool]) -> list[str]:
    return [
        f"deployment {name}: {raised_in(deployment.message)}"
        for name, deployment in sorted(overview.deployments.items())
        if is_wanted(deployment)
    ]
