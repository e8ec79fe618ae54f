"""How a call ended: its status with everything that belongs to it, as lines for people or for ``--json``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import grpc
from google.protobuf.message import DecodeError

from sdk._status import STATUS_DETAILS
from sdk.cli.rpc.json_messages import Messages, UnprintableError, as_text, dumps

if TYPE_CHECKING:
    from google.protobuf.message import Message

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
Pairs = tuple[tuple[str, "str | bytes"], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: Its status code.
        details: The status's text.
        initial: Its initial metadata.
        trailing: Its trailing metadata.
        messages: Number of messages that came.
        seconds: How long it took.
    """

    code: grpc.StatusCode
    details: str
    initial: Pairs = ()
    trailing: Pairs = ()
    messages: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def is_ok(self) -> bool:
        """Whether it succeeded."""
        return self.code is grpc.StatusCode.OK


def status_details(outcome: Outcome) -> list[Message] | None:
    """Return the ``google.protobuf.Any`` messages of a status; None when it has none, or none that can be read."""
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no types

    data = next((value for key, value in outcome.trailing if key == STATUS_DETAILS), None)
    if not isinstance(data, bytes):
        return None
    try:
        return list(Status.FromString(data).details)
    except DecodeError:
        return None  # the trailer is shown as it is


def as_lines(outcome: Outcome, messages: Messages) -> Iterator[str]:
    """Yield the lines about a status that follow the messages of a call.

    Args:
        outcome: How the call ended.
        messages: Writes the messages in the status.
    """
    colour = "green" if outcome.is_ok else "red"
    count = f"{outcome.messages} message{'' if outcome.messages == 1 else 's'} in {_duration(outcome.seconds)}"
    said = f": {_printable(outcome.details)}" if outcome.details else ""
    yield f"{click.style(outcome.code.name, fg=colour, bold=True)}{said} ({count})"
    details = status_details(outcome)
    for each in details or ():
        shown = _detail(each, messages)
        kind = shown.pop("@type", "google.protobuf.Any").rpartition("/")[2]
        yield f"  {click.style(kind, bold=True)} {dumps(shown)}"
    hidden = () if details is None else (STATUS_DETAILS,)
    yield from metadata_lines(pair for pair in outcome.trailing if pair[0] not in hidden)


def metadata_lines(pairs: Iterable[tuple[str, str | bytes]]) -> Iterator[str]:
    """Yield a line for each pair of metadata, indented."""
    for key, value in pairs:
        yield f"  {click.style(f'{key}:', dim=True)} {_printable(as_text(value))}"


def as_json(outcome: Outcome, shown: list[Any], messages: Messages) -> dict[str, Any]:
    """Return a whole call as ``--json`` prints it; ``docs/reference/cli.md`` describes it.

    Args:
        outcome: How the call ended.
        shown: The messages that came, as JSON has them.
        messages: Writes the messages in the status.
    """
    return {
        "messages": shown,
        "status": {
            "code": outcome.code.name,
            "number": outcome.code.value[0],
            "message": outcome.details,
            "details": [_detail(each, messages) for each in status_details(outcome) or ()],
        },
        "initial_metadata": [[key, as_text(value)] for key, value in outcome.initial],
        "trailing_metadata": [[key, as_text(value)] for key, value in outcome.trailing],
        "seconds": round(outcome.seconds, 6),
    }


def _detail(packed: Any, messages: Messages) -> dict[str, Any]:
    """Return a detail of a status; one that is no message of its type as its bytes, since the status itself counts."""
    try:
        return dict(messages.as_dict(packed))
    except UnprintableError:
        return {"@type": packed.type_url, "@value": as_text(packed.value)}


def _printable(text: str) -> str:
    """Return a server's text without what would command the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
