"""Outcome of a call: its status, metadata and details, as lines of text or as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import grpc
from google.protobuf.message import DecodeError

from codegen.console import count
from sdk._status import STATUS_DETAILS
from sdk.cli.rpc.json_messages import JsonCodec, UnprintableError, as_text, dumps

if TYPE_CHECKING:
    from google.protobuf.message import Message

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
Pairs = tuple[tuple[str, "str | bytes"], ...]


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Outcome of a call.

    Attributes:
        code: The status code.
        details: The status message.
        initial: The initial metadata.
        trailing: The trailing metadata.
        messages: Number of response messages.
        seconds: Duration of the call.
    """

    code: grpc.StatusCode
    details: str
    initial: Pairs = ()
    trailing: Pairs = ()
    messages: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def is_ok(self) -> bool:
        """True if the status is OK."""
        return self.code is grpc.StatusCode.OK


def status_details(outcome: CallOutcome) -> list[Message] | None:
    """Return the ``google.protobuf.Any`` messages of a status; None if it has no details, or they can't be parsed.

    See https://google.aip.dev/193.
    """
    from sdk._gen.status_pb2 import Status

    data = next((value for key, value in outcome.trailing if key == STATUS_DETAILS), None)
    if not isinstance(data, bytes):
        return None
    try:
        return list(Status.FromString(data).details)
    except DecodeError:
        return None  # the trailer is shown unparsed


def as_lines(outcome: CallOutcome, messages: JsonCodec) -> Iterator[str]:
    """Yield the lines about the status, which follow the messages of a call.

    Args:
        outcome: The outcome of the call.
        messages: Converts the details of the status.
    """
    colour = "green" if outcome.is_ok else "red"
    received = f"{count(outcome.messages, 'message')} in {_duration(outcome.seconds)}"
    details_text = f": {_printable(outcome.details)}" if outcome.details else ""
    yield f"{click.style(outcome.code.name, fg=colour, bold=True)}{details_text} ({received})"
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


def as_json(outcome: CallOutcome, shown: list[Any], messages: JsonCodec) -> dict[str, Any]:
    """Return a call as JSON; the reference of the command line documents it.

    Args:
        outcome: The outcome of the call.
        shown: The response messages as JSON values.
        messages: Converts the details of the status.
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


def _detail(packed: Any, messages: JsonCodec) -> dict[str, Any]:
    """Return a detail of a status as JSON; its bytes if they can't be parsed, so that the status is still shown."""
    try:
        return dict(messages.as_dict(packed))
    except UnprintableError:
        return {"@type": packed.type_url, "@value": as_text(packed.value)}


def _printable(text: str) -> str:
    """Return a server's text with control characters of terminals escaped."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
