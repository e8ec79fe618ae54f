"""The forms of a call in each protocol, written from the public descriptions: bytes to send, and what the answer says.

https://connectrpc.com/docs/protocol, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md,
https://github.com/ndjson/ndjson-spec, https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format

from sdk._web.http_status import CODES
from tests.web.http_client import Answer

NUMBERS = {name: number for number, (name, _) in CODES.items()}
COMPRESSED, CONNECT_END, WEB_TRAILERS = 1, 2, 0x80


@dataclass(frozen=True)
class Outcome:
    """Outcome of a call, the same whatever the protocol.

    Attributes:
        messages: The response messages as JSON.
        code: The gRPC status code; None if the answer does not say how the call has ended.
        message: The status message.
        details: Types of the error's details.
        trailing: The trailing metadata.
    """

    messages: list[Any]
    code: int | None
    message: str = ""
    details: list[str] = field(default_factory=list)
    trailing: Mapping[str, str] = field(default_factory=dict)


def envelopes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield flags and content of each enveloped message."""
    while data:
        flags, length = struct.unpack_from(">BI", data)
        assert len(data) >= 5 + length, "an envelope is cut"
        yield flags, data[5 : 5 + length]
        data = data[5 + length :]


def envelope(data: bytes, flags: int = 0) -> bytes:
    """Return an enveloped message."""
    return struct.pack(">BI", flags, len(data)) + data


def as_json(kind: Any, data: bytes) -> Any:
    """Return protobuf bytes as JSON."""
    return json_format.MessageToDict(kind.FromString(data))


@dataclass(frozen=True)
class Form:
    """One protocol, with one codec.

    Attributes:
        name: Its name in the tests.
        content_type: Returns the content-type of requests; its arguments say whether request and response are streams.
        headers: Other headers of requests.
        encode: Returns the body of some request messages.
        decode: Returns the outcome of an answer; its last two arguments say whether request and response are streams.
    """

    name: str
    content_type: Callable[[bool, bool], str]
    encode: Callable[[Sequence[Any], bool], bytes]
    decode: Callable[[Answer, Any, bool, bool], Outcome]
    headers: Mapping[str, str] = field(default_factory=dict)


def _json_body(messages: Sequence[Any], _: bool) -> bytes:
    return b"\n".join(json_format.MessageToJson(each, indent=None).encode() for each in messages)


def _proto_body(messages: Sequence[Any], _: bool) -> bytes:
    (message,) = messages
    data: bytes = message.SerializeToString()
    return data


def _proto_frames(messages: Sequence[Any], _: bool) -> bytes:
    return b"".join(envelope(each.SerializeToString()) for each in messages)


def _text_frames(messages: Sequence[Any], is_stream: bool) -> bytes:
    return base64.b64encode(_proto_frames(messages, is_stream))


def _json_frames(messages: Sequence[Any], _: bool) -> bytes:
    return b"".join(envelope(json_format.MessageToJson(each, indent=None).encode()) for each in messages)


def error_of(error: Any, messages: list[Any], trailing: Mapping[str, str]) -> Outcome:
    """Return the outcome that Connect's form of an error describes."""
    details = [each["type"] for each in error.get("details", ())]
    return Outcome(messages, NUMBERS[error["code"]], error.get("message", ""), details, trailing)


def _trailers(answer: Answer) -> dict[str, str]:
    return {key[8:]: value for key, value in answer.headers.items() if key.startswith("trailer-")}


def _unary_proto(answer: Answer, kind: Any, takes: bool, gives: bool) -> Outcome:
    if answer.status != 200:
        assert answer.headers["content-type"] == "application/json"
        return error_of(answer.json, [], _trailers(answer))
    assert answer.headers["content-type"] == "application/proto"
    return Outcome([as_json(kind, answer.body)], 0, trailing=_trailers(answer))


def _plain_json(answer: Answer, kind: Any, takes: bool, gives: bool) -> Outcome:
    trailing = _trailers(answer)
    if answer.status != 200:
        assert answer.headers["content-type"] == "application/json"
        return error_of(answer.json, [], trailing)
    if not gives:
        assert answer.headers["content-type"] == "application/json"
        return Outcome([answer.json], 0, trailing=trailing)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.lines
    if lines and lines[-1].keys() == {"error"}:
        return error_of(lines[-1]["error"], lines[:-1], {})
    return Outcome(lines, 0)


def _events(answer: Answer, kind: Any, takes: bool, gives: bool) -> Outcome:
    if answer.status != 200 or not gives:
        return _plain_json(answer, kind, takes, gives)
    assert answer.headers["content-type"] == "text/event-stream"
    messages = []
    for event in answer.body.decode().removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        if fields.get("event") == "error":
            return error_of(json.loads(fields["data"]), messages, {})
        if fields.get("event") == "end":
            return Outcome(messages, 0)
        messages.append(json.loads(fields["data"]))
    return Outcome(messages, None)


def connect_stream(codec: str) -> Callable[[Answer, Any], Outcome]:
    """Return the decoder of a Connect stream."""

    def decode(answer: Answer, kind: Any) -> Outcome:
        assert answer.status == 200
        assert answer.headers["content-type"] == f"application/connect+{codec}"
        messages = []
        for flags, data in envelopes(answer.body):
            if flags & COMPRESSED:
                assert answer.headers["connect-content-encoding"] == "gzip"
                data = gzip.decompress(data)
            if flags & CONNECT_END:
                end = json.loads(data)
                trailing = {key: ",".join(values) for key, values in end.get("metadata", {}).items()}
                return (
                    error_of(end["error"], messages, trailing)
                    if "error" in end
                    else Outcome(messages, 0, "", [], trailing)
                )
            messages.append(json.loads(data) if codec == "json" else as_json(kind, data))
        return Outcome(messages, None)

    return decode


def _connect(codec: str) -> Form:
    unary = _plain_json if codec == "json" else _unary_proto
    body = _json_body if codec == "json" else _proto_body
    frames = _json_frames if codec == "json" else _proto_frames
    stream = connect_stream(codec)
    return Form(
        f"connect-{codec}",
        lambda takes_stream, gives_stream: f"application/{'connect+' if takes_stream or gives_stream else ''}{codec}",
        lambda messages, is_stream: frames(messages, True) if is_stream else body(messages, False),
        lambda answer, kind, takes, gives: (
            stream(answer, kind) if takes or gives else unary(answer, kind, takes, gives)
        ),
        {"connect-protocol-version": "1"},
    )


def _web_trailers(lines: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines.decode().removesuffix("\r\n").split("\r\n"))


def _grpc_web(answer: Answer, kind: Any, takes: bool, gives: bool) -> Outcome:
    assert answer.status == 200
    # Envoy gives no content-type to an answer without a body: its status is in the headers.
    data, kind_sent = answer.body, answer.headers.get("content-type", "application/grpc-web+proto")
    is_text = "text" in kind_sent
    if is_text:
        padded = [piece + b"=" * (-len(piece) % 4) for piece in data.replace(b"=", b" ").split()]
        data = b"".join(map(base64.b64decode, padded))
    assert kind_sent == f"application/grpc-web{'-text' if is_text else ''}+proto"
    messages, trailers = [], {}
    for flags, content in envelopes(data):
        assert not trailers, "the trailers are the last frame"
        if flags & WEB_TRAILERS:
            trailers = _web_trailers(content)
        else:
            messages.append(as_json(kind, content))
    if not trailers and "grpc-status" in answer.headers:
        trailers = dict(answer.headers)
    if "grpc-status" not in trailers:
        return Outcome(messages, None)
    details: list[str] = []
    if "grpc-status-details-bin" in trailers:
        from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no types

        packed = trailers["grpc-status-details-bin"]
        status = Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
        details = [each.TypeName() for each in status.details]
    return Outcome(messages, int(trailers["grpc-status"]), unquote(trailers.get("grpc-message", "")), details, trailers)


FORMS = {
    form.name: form
    for form in (
        Form("json", lambda takes, gives: "application/json", _json_body, _plain_json),
        Form("events", lambda takes, gives: "application/json", _json_body, _events, {"accept": "text/event-stream"}),
        _connect("json"),
        _connect("proto"),
        Form("grpc-web", lambda takes, gives: "application/grpc-web+proto", _proto_frames, _grpc_web),
        Form("grpc-web-text", lambda takes, gives: "application/grpc-web-text", _text_frames, _grpc_web),
    )
}
