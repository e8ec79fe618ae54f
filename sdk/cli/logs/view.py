"""Presentation of log entries: a line of text for people, a JSON object for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sdk._serve.node_logs import Entry

_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


def as_json(entry: Entry) -> str:
    """Return an entry as one JSON object, with the time in UTC as in RFC 3339.

    Args:
        entry: The entry.
    """
    at = datetime.fromtimestamp(entry["time"], UTC).isoformat(timespec="milliseconds")
    return json.dumps({**entry, "time": at}, ensure_ascii=False)


def as_text(entry: Entry) -> str:
    r"""Return an entry as text: time, place, level, request id and message.

    Args:
        entry: The entry.

    Example:
        >>> place = {"source": "replica", "application": "shop", "deployment": "Till", "replica": "x1"}
        >>> as_text({"time": 0.0, "level": "INFO", "request_id": "r1", "message": "paid", **place})[24:]
        'shop/Till/x1 INFO r1 -- paid'
    """
    at = datetime.fromtimestamp(entry["time"]).isoformat(" ", timespec="milliseconds")
    if entry["source"] == "replica":
        place = "/".join(entry[name] or "?" for name in ("application", "deployment", "replica"))
    else:
        place = f"{entry['source']}@{entry['node'][:8]}"
    level = entry["level"] or "INFO"
    shown = click.style(level, fg=_COLOURS[level]) if level in _COLOURS else level
    request_id = f" {entry['request_id']}" if entry["request_id"] else ""
    return f"{at} {place} {shown}{request_id} -- {entry['message']}"
