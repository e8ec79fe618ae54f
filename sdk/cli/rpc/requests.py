"""The request messages of a call: those that ``-d`` holds, or those that come on standard input."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.cli.rpc.json_stream import JsonError, JsonStream, JsonValue
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from google.protobuf.message import Message

Read = Callable[[JsonValue], "Message"]

STDIN = ("-", "@-", "@")
_DESCRIPTOR = 0
_CHUNK = 1 << 16


def given_messages(data: str | None, read: Read) -> list[Message]:
    """Return all messages that ``-d`` holds.

    Args:
        data: JSON, ``@FILE``, ``-`` for standard input, or None.
        read: Turns a JSON value into a message.

    Raises:
        OptionsError: The data can't be read, or is no JSON, or does not fit the message; the text says where.
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
            raise OptionsError(f"-d {data}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise OptionsError(f"-d {data}: it is no UTF-8: {error.reason} at byte {error.start}") from None
    stream = JsonStream(source)
    return [read(value) for values in (stream.feed(text), stream.end()) for value in values]


def is_terminal_input() -> bool:
    """Return whether somebody types what comes on standard input."""
    return os.isatty(_DESCRIPTOR)


def messages_from_stdin(read: Read) -> Iterator[Message]:
    """Yield each message of standard input as soon as it is there.

    Args:
        read: Turns a JSON value into a message.

    Raises:
        JsonError: What comes is no JSON, or does not fit the message; the text says where.
    """
    stream = JsonStream("stdin")
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    if sys.stdin is None:  # its number may be that of something else by now
        raise OptionsError("-d -: standard input is closed")
    # Not by sys.stdin: its lock would be held while it waits, and the program could not end before the input does.
    is_end = False
    while not is_end:
        try:
            chunk = os.read(_DESCRIPTOR, _CHUNK)
        except OSError as error:
            raise OptionsError(f"stdin can't be read: {error.strerror}") from None
        is_end = not chunk
        try:
            text = decoder.decode(chunk, final=is_end)
        except UnicodeDecodeError as error:
            raise JsonError(f"stdin: it is no UTF-8: {error.reason}") from None
        for value in stream.feed(text):
            yield read(value)
    for value in stream.end():
        yield read(value)


class Watched:
    """An iterator of messages for grpc, which takes them in a thread of its own, and keeps what went wrong there.

    Args:
        messages: The messages.

    Attributes:
        error: What went wrong, or None.
    """

    def __init__(self, messages: Iterator[Message]) -> None:
        self._messages = messages
        self._stop: Callable[[], object] | None = None
        self.error: BaseException | None = None

    def on_error(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` when something goes wrong, or now, when it did already."""
        self._stop = stop
        if self.error is not None:
            stop()

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Message:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except BaseException as error:  # raised again in the main thread, when the call has ended
            self.error = error
            if self._stop is not None:
                self._stop()
            raise StopIteration from None
