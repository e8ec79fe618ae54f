"""Request messages of a call, from ``-d`` or from standard input."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sdk._error_text import os_reason
from sdk.cli.rpc.json_stream import JsonError, JsonStream, JsonValue
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from google.protobuf.message import Message

Read = Callable[[JsonValue], "Message"]

STDIN = ("-", "@-", "@")
_DESCRIPTOR = 0
_CHUNK = 1 << 16


def given_messages(data: str | None, read: Read) -> list[Message]:
    """Return all messages of ``-d``.

    Args:
        data: JSON, ``@FILE``, ``-`` for standard input, or None.
        read: Converts a JSON value to a message.

    Raises:
        OptionsError: The data can't be read, is not JSON, or does not fit the message; the error has the position.
    """
    if data is None:
        return []
    if data in STDIN:
        return list(messages_from_stdin(read))
    text, source = data, "-d"
    if data.startswith("@"):
        source = data[1:]
        try:
            text = Path(source).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise OptionsError(f"-d {data}: {os_reason(error)}") from None
        except UnicodeDecodeError as error:
            raise OptionsError(f"-d {data}: not UTF-8: {error.reason} at byte {error.start}") from None
    stream = JsonStream(source)
    return [read(value) for values in (stream.feed(text), stream.end()) for value in values]


def is_terminal_input() -> bool:
    """Return whether standard input is a terminal."""
    return os.isatty(_DESCRIPTOR)


def messages_from_stdin(read: Read) -> Iterator[Message]:
    """Yield each message of standard input as soon as it arrives.

    Args:
        read: Converts a JSON value to a message.

    Raises:
        JsonError: The input is not JSON, or does not fit the message; the error has the position.
    """
    stream = JsonStream("stdin")
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    if sys.stdin is None:  # another file may have its descriptor by now
        raise OptionsError("-d -: standard input is closed")
    # Not with sys.stdin: it would hold its lock while it waits, and the program could not end before the input does.
    is_end = False
    while not is_end:
        try:
            chunk = os.read(_DESCRIPTOR, _CHUNK)
        except OSError as error:
            raise OptionsError(f"stdin can't be read: {os_reason(error)}") from None
        is_end = not chunk
        try:
            text = decoder.decode(chunk, final=is_end)
        except UnicodeDecodeError as error:
            raise JsonError(f"stdin: not UTF-8: {error.reason}") from None
        for value in stream.feed(text):
            yield read(value)
    for value in stream.end():
        yield read(value)


class RequestIterator:
    """An iterator of request messages that keeps an error: grpc iterates in a separate thread and would drop it.

    Args:
        messages: The messages.

    Attributes:
        error: The error that ended the iteration, or None.
    """

    def __init__(self, messages: Iterator[Message]) -> None:
        self._messages = messages
        self._stop: Callable[[], object] | None = None
        self.error: BaseException | None = None

    def on_error(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` when an error ends the iteration, or now if one has."""
        self._stop = stop
        if self.error is not None:
            stop()

    def __iter__(self) -> RequestIterator:
        return self

    def __next__(self) -> Message:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except BaseException as error:  # raised again in the main thread after the call
            self.error = error
            if self._stop is not None:
                self._stop()
            raise StopIteration from None
