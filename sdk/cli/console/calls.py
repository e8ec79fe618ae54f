"""A call that the page makes: its request as JSON, and what happens as events."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdk.cli.rpc.client_call import ClientCall
from sdk.cli.rpc.connection import metadata_pair
from sdk.cli.rpc.json_messages import as_text, check_required
from sdk.cli.rpc.json_stream import JsonStream
from sdk.cli.rpc.outcome import as_json
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk.cli.console.services import CalledMethod, Services
    from sdk.client import SyncClient

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """The request of the page.

    Attributes:
        application: Name of the application; empty to send none.
        path: ``"pkg.Service/Method"``.
        messages: The request messages, each as JSON text.
        metadata: Keys and values; the value of a key that ends with ``-bin`` is base64.
        timeout_s: The deadline in seconds; None for none.
        stays_open: True if more messages of a stream follow.
    """

    application: str
    path: str
    messages: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    stays_open: bool = False

    @classmethod
    def from_json(cls, value: Any) -> CallRequest:
        """Return the request of a JSON value.

        Raises:
            OptionsError: The value has another form.
        """
        fields = value if isinstance(value, dict) else {}
        application, path, timeout = fields.get("application", ""), fields.get("path"), fields.get("timeout")
        messages, metadata = fields.get("messages", []), fields.get("metadata", [])
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if (
            not isinstance(application, str)
            or not isinstance(path, str)
            or not _is_list_of(messages, str)
            or not isinstance(metadata, list)
            or not all(_is_list_of(pair, str) and len(pair) == 2 for pair in metadata)
            or not (timeout is None or is_number)
        ):
            raise OptionsError("the request of the page is not that of a call: reload the page")
        if (
            timeout is not None and not 0 < timeout < 10**8
        ):  # https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
            raise OptionsError(f"the deadline must be a positive number of seconds, not {timeout!r}")
        pairs = tuple((str(key), str(text)) for key, text in metadata)
        return cls(application, path, tuple(messages), pairs, timeout, fields.get("open") is True)


class OpenRequests:
    """The request messages of a stream: those that are known, and those that the page adds.

    Args:
        read: Converts JSON text and its name to a message.
    """

    def __init__(self, read: Callable[[str, str], Message]) -> None:
        self._read = read
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._count = 0

    def add(self, texts: tuple[str, ...]) -> None:
        """Send messages, all or none.

        Raises:
            OptionsError: One is not JSON of such a message.
        """
        read = [self._read(text, f"message {self._count + index + 1}") for index, text in enumerate(texts)]
        self._count += len(read)
        for message in read:
            self._messages.put(message)

    def end(self) -> None:
        """End the stream. Does no harm if it has ended."""
        self._messages.put(None)

    def __iter__(self) -> Iterator[Message]:
        while (message := self._messages.get()) is not None:
            yield message


class ConsoleCall:
    """One call.

    Args:
        client: The client.
        called: The method.
        asked: What the page asks for.

    Attributes:
        requests: Its request messages.

    Raises:
        OptionsError: A message, or metadata, is invalid.
    """

    def __init__(self, client: SyncClient, called: CalledMethod, asked: CallRequest) -> None:
        self._codec, self._events = called.codec, list[Event]()
        method = called.method
        if not method.cardinality.client_streaming and len(asked.messages) != 1:
            raise OptionsError(f"{asked.path} takes one message, not {len(asked.messages)}")
        self.requests = OpenRequests(lambda text, name: _read_one(called, text, name))
        self.requests.add(asked.messages)
        if not asked.stays_open:
            self.requests.end()
        options: Any = {"metadata": [metadata_pair(key, value, f"metadata {key!r}") for key, value in asked.metadata]}
        if asked.timeout_s is not None:
            options["timeout"] = asked.timeout_s
        if asked.application:
            options["application"] = asked.application
        self._call = ClientCall(client, method, iter(self.requests), options, self._started)

    @classmethod
    def open(cls, client: SyncClient, services: Services, asked: CallRequest) -> ConsoleCall:
        """Return the call that the page asks for.

        Raises:
            OptionsError: There is no such method, or a message, or metadata, is invalid.
        """
        return cls(client, services.method(asked.application, asked.path), asked)

    def events(self) -> Iterator[Event]:
        """Make the call, and yield what happens: ``headers``, each ``message``, and the ``end`` with the status."""
        try:
            for message in self._call.responses():
                yield from self._taken()
                yield {"event": "message", "message": self._codec.as_dict(message)}
        finally:
            self.requests.end()
        yield from self._taken()
        yield {"event": "end", **as_json(self._call.outcome, [], self._codec)}

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()
        self.requests.end()

    def _started(self, metadata: Any) -> None:
        self._events.append({"event": "headers", "metadata": [[key, as_text(value)] for key, value in metadata]})

    def _taken(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken


def _read_one(called: CalledMethod, text: str, name: str) -> Message:
    stream = JsonStream(name)
    values = [*stream.feed(text), *stream.end()]
    if len(values) > 1:
        raise OptionsError(f"{name}: this is {len(values)} JSON values: give one")
    if not values:
        message = called.method.request()
        check_required(message, name)
        return message
    return called.codec.read(values[0], called.method.request)


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)
