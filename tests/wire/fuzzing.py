"""Fuzzing of the wire server without sockets: valid requests, mutated, in pieces; of gRPC, and of all other protocols.

``make fuzz`` replays the inputs that failed before, then makes new ones from a new seed for FUZZ_SECONDS (60). An input
that fails is stored in ``fuzz-failures/``; to replay one:

    .venv/bin/python -m tests.wire.fuzzing --replay fuzz-failures/….json
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import logging
import os
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache, lru_cache
from itertools import permutations
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import uvloop
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import current_context
from sdk._web.protocols import serve_web
from sdk._wire.frames import pack_prefix
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.service import Method, MethodBinding
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, FakeTransport

T = TypeVar("T")

FAILURES = Path("fuzz-failures")
# Beginning of the names of inputs of other protocols than gRPC.
_WEB = "web-"


class Step(NamedTuple):
    """Next action of the peer: send bytes, let the server run, pause or resume reading its responses."""

    does: str
    data: bytes = b""


class Chance(random.Random):
    """A generator whose draws cost a third of Python's; in exchange, they are even to 2**-40 only."""

    def choice(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def below(self, end: int) -> int:
        """Return an integer from 0 to below the end."""
        return int(self.random() * end)

    def upto(self, end: int) -> int:
        """Return an integer from 0 to the end."""
        return int(self.random() * (end + 1))


#: Makes a valid request of a number.
MakeRequest: TypeAlias = "Callable[[Chance, int], bytes]"

# -- requests -------------------------------------------------------------------------------------


# Pairs of headers.
HEADERS = list(permutations(
    ["te: trailers", "x: ", "a-bin: AAE", "grpc-timeout: 1H", "grpc-timeout: 1n", "expect: x"], 2
))  # fmt: skip
WEB_HEADERS = list(permutations(
    ["x: ", "accept: text/event-stream", "connect-protocol-version: 1", "connect-timeout-ms: 1000", "te: x",
     "accept-encoding: gzip", "x-ratelimit-limit: 1", "origin: https://a"], 2
))  # fmt: skip
# Of the numbers 0 to 7: messages, these with their prefix, and these compressed.
MESSAGES = [Int32Value(value=value).SerializeToString() for value in range(8)]
FRAMES = [pack_prefix(0, len(data)) + data for data in MESSAGES]
COMPRESSED = [pack_prefix(1, len(data)) + data for data in (gzip.compress(each, 1, mtime=0) for each in MESSAGES)]


@cache
def head(method: str, number: int, headers: tuple[str, ...], encoding: str) -> bytes:
    """Return the headers of a request, without those of the length of its body."""
    lines = [f"POST /t.T/{method} HTTP/1.1", "host: x", "content-type: application/grpc", f"request_id: {number}"]
    lines += headers
    if encoding:
        lines.append(f"grpc-encoding: {encoding}")
    return "\r\n".join([*lines, ""]).encode()


@lru_cache(10_000)  # most bodies have one of few messages
def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks of a size, with their end."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join([b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]) + b"0\r\n\r\n"


def request(rng: Chance, number: int) -> bytes:
    """Return a valid request."""
    method = rng.choice(("Unary", "Count", "Total", "Echo", "Raises", "Unknown"))
    headers = rng.choice(HEADERS)
    encoding = rng.choice(("", "gzip", "br"))
    begin = head(method, number, headers, encoding)
    count = rng.choice((0, 1, 2, 5)) if method in ("Total", "Echo") else rng.choice((1, 1, 1, 1, 0, 2))
    body = b""
    for _ in range(count):
        body += rng.choice(COMPRESSED if encoding == "gzip" and rng.random() < 0.5 else FRAMES)
    if rng.random() < 0.2:
        return b"%scontent-length: %d\r\n\r\n%s" % (begin, len(body), body)
    return b"%stransfer-encoding: chunked\r\n\r\n%s" % (begin, chunked(body, rng.choice((1, 3, 1000))))


def web_request(rng: Chance, number: int) -> bytes:
    """Return a valid request over gRPC-Web, Connect, or plain HTTP."""
    method = rng.choice(("Unary", "Count", "Total", "Echo", "Raises", "Look", "Unknown"))
    kind = rng.choice(("json", "proto", "grpc-web+proto", "grpc-web-text", "connect+json", "connect+proto", "x-ndjson"))
    lines = ["host: x", f"content-type: application/{kind}", f"request_id: {number}"]
    lines += rng.choice(WEB_HEADERS)
    messages = [rng.below(8) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    packed = [MESSAGES[value] for value in messages]
    if kind in ("json", "x-ndjson"):
        body = b"\n".join(b"%d" % value for value in messages)
    elif kind == "proto":
        body = b"".join(packed)
    else:
        each = [b"%d" % value for value in messages] if kind == "connect+json" else packed
        body = b"".join(pack_prefix(0, len(data)) + data for data in each)
        body += pack_prefix(2, 2) + b"{}" if kind.startswith("connect") and rng.random() < 0.8 else b""
    if kind == "grpc-web-text":
        body = base64.b64encode(body)
    if rng.random() < 0.2:
        query = rng.choice(("encoding=json&message=3", "encoding=proto&message=CAM&base64=1", "message=%7B%7D", ""))
        return "\r\n".join([f"GET /t.T/{method}?{query} HTTP/1.1", *lines, "", ""]).encode()
    if rng.random() < 0.3:
        lines.append("content-encoding: gzip")
        body = gzip.compress(body, 1, mtime=0)
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join([f"POST /t.T/{method} HTTP/1.1", *lines, "", ""]).encode() + body


TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0\r\n\r\n", b"ffffffff\r\n", b"-1\r\n", b"5;a=b\r\n", b"\xff" * 5,
    b"\0\0\0\0\0", b"\1\0\0\0\1x", b"\0\xff\xff\xff\xff", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n", b"grpc-timeout: 1m\r\n", b"HTTP/1.0", b"GET ",
    b"POST /t.T/Unary HTTP/1.1\r\n", b"grpc-encoding: deflate\r\n", b"content-type: application/grpc\r\n",
    b"a: b\r\n" * 300, b"b" * 3000, b"{", b'"a":', b"[" * 2000, b"1e999", b"content-type: application/json\r\n",
    b"?message=", b"content-encoding: gzip\r\n", b"connect-timeout-ms: 1\r\n", b"PUT ", b"%ff", b"\x80\0\0\0\0",
]  # fmt: skip


def mutate(rng: Chance, data: bytes, make_request: MakeRequest) -> bytes:
    """Return the bytes with one mutation.

    Args:
        rng: Chooses it.
        data: The bytes.
        make_request: Makes another request, for a mixture of both.
    """
    at, end = sorted((rng.upto(len(data)), rng.upto(len(data))))
    end = min(end, at + rng.choice((1, 2, 8, 100)))
    kind = rng.below(7)
    if kind == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << rng.below(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:end] + data[at:end] + data[end:]
    if kind == 3:
        other = make_request(rng, 9)
        return data[:at] + other[rng.upto(len(other)) :]
    if kind == 4:
        return data[:at]
    return data[:at] + rng.choice(TOKENS) + data[end if kind == 5 else at :]


def make_input(rng: Chance, make_request: MakeRequest = request) -> list[Step]:
    """Return the actions of a peer on one connection."""
    steps: list[Step] = []
    for number in range(rng.choice((1, 1, 2, 3))):
        data = make_request(rng, number)
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            data = mutate(rng, data, make_request)
        cuts = rng.choice((0, 0, 1, 2, 5))
        places = sorted({0, len(data), *(rng.upto(len(data)) for _ in range(cuts))})
        for start, stop in zip(places, places[1:]):  # noqa: B905, RUF007  # one shorter; pairwise is slower here
            steps.append(Step("send", data[start:stop]))
            if rng.random() < 0.2:
                steps.append(Step(rng.choice(("wait", "pause", "resume"))))
        if rng.random() < 0.9:
            steps.append(Step("wait"))
    return steps


# -- handlers --------------------------------------------------------------------------------------


async def unary(request: Int32Value) -> StringValue:
    return StringValue(value=current_context().request_id())


async def count(request: Int32Value) -> AsyncIterator[StringValue]:
    for number in range(max(0, request.value)):
        yield StringValue(value=str(number))


async def total(requests: AsyncIterator[Int32Value]) -> StringValue:
    return StringValue(value=str(sum([request.value async for request in requests])))


async def echo(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
    async for request in requests:
        yield StringValue(value=str(request.value))


async def raises(request: Int32Value) -> StringValue:
    raise KeyError(request.value)


class FuzzFailure(Exception):
    """Error of the server that must never happen."""


class _UnexpectedLogs(logging.Handler):
    """Collects log records, apart from those for the handler that raises."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "Raises failed" not in record.getMessage():
            self.seen.append(self.format(record))


class Fuzzer:
    """A server, and peers that run one input after another. Needs a running loop; while entered, it checks the logs.

    Args:
        is_web: Whether it answers other protocols than gRPC, too.
    """

    def __init__(self, *, is_web: bool = False) -> None:
        kinds = {"Unary": UNARY, "Count": SERVER, "Total": CLIENT, "Echo": BIDI, "Raises": UNARY, "Look": UNARY}
        handlers = {"Unary": unary, "Count": count, "Total": total, "Echo": echo, "Raises": raises, "Look": unary}
        self.entered: list[str] = []
        self.server = WireServer(
            [
                MethodBinding(
                    Method(
                        name,
                        name,
                        f"/t.T/{name}",
                        kinds[name],
                        Int32Value,
                        StringValue,
                        idempotency="no_side_effects" if name == "Look" else "unknown",
                    ),
                    handler,
                )
                for name, handler in handlers.items()
            ],
            WireSettings(max_receive_message_length=1000, error_details="message"),
            on_start=lambda call: self.entered.append(call.request_id),
        )
        self._is_web = is_web
        if is_web:
            serve_web(self.server)
        self.server.host.attach(asyncio.get_running_loop())
        self.unexpected_logs = _UnexpectedLogs()
        self.calls = self.ok = self.refused = 0

    def __enter__(self) -> Fuzzer:
        logger = logging.getLogger("sdk.wire")
        logger.addHandler(self.unexpected_logs)
        self._propagated, logger.propagate = logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("sdk.wire")
        logger.removeHandler(self.unexpected_logs)
        logger.propagate = self._propagated

    async def run(self, steps: list[Step]) -> None:
        """Run one input.

        Raises:
            FuzzFailure: The server did something that must never happen.
        """
        server = self.server
        self.entered.clear()
        transport = FakeTransport()
        connection = server.new_connection()
        connection.connection_made(transport)  # type: ignore[arg-type]
        for step in steps:
            if step.does == "send":
                if not transport.closed:
                    connection.data_received(step.data)
            elif step.does == "pause":
                connection.pause_writing()
            elif step.does == "resume":
                connection.resume_writing()
            else:
                await self._turns(8)
        await self._turns(8)
        transport.closed = True
        connection.connection_lost(None)
        await self._turns(50)
        if server.host.ongoing or server.connections or server.host.queue or len(asyncio.all_tasks()) != 1:
            raise FuzzFailure(
                f"left over: {server.host.ongoing} calls, {server.connections} connections, {asyncio.all_tasks()}"
            )
        if self.unexpected_logs.seen:
            raise FuzzFailure(f"logged: {self.unexpected_logs.seen.pop()}")
        self._check(transport.written)

    async def _turns(self, most: int) -> None:
        """Let the server run until no call is ongoing."""
        for _ in range(most):
            await asyncio.sleep(0)
            if not self.server.host.ongoing:
                return

    def _check(self, written: bytes) -> None:
        self.calls += len(self.entered)
        if self._is_web:
            statuses = split_web_responses(written)
            self.ok += statuses.count(b"200")
            self.refused += len(statuses) - statuses.count(b"200")
            return
        answers = split_responses(written)
        ok = [trailers[b"request_id"].decode("latin-1") for status, trailers in answers if is_ok(trailers)]
        self.ok += len(ok)
        self.refused += sum(status != b"200" for status, _ in answers)
        # Each response is that of a call that ran, in the order of their requests.
        calls = iter(self.entered)
        if not all(any(call == answer for call in calls) for answer in ok):
            raise FuzzFailure(f"answers for {ok} to calls {self.entered}")
        if any(status != b"200" for status, _ in answers[:-1]):
            raise FuzzFailure(f"an answer after a refusal: {written!r}")


def is_ok(trailers: dict[bytes, bytes]) -> bool:
    """Return True for the trailers of a call that succeeded."""
    return trailers.get(b"grpc-status") == b"0"


_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]+\r\n")
_FIELDS = re.compile(rb"((?:[!-9;-~]+: [^\r\n]*\r\n)*)\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


@lru_cache(10_000)  # many requests are refused in the same words
def split_responses(data: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the status and trailers of each response; the last may be incomplete.

    Raises:
        FuzzFailure: The bytes are not a sequence of HTTP/1.1 responses with exactly one end each.
    """
    answers: list[tuple[bytes, dict[bytes, bytes]]] = []
    at = 0
    while at < len(data):
        status = _STATUS.match(data, at)
        head = status and _FIELDS.match(data, status.end())
        if status is None or head is None:
            raise FuzzFailure(f"no answer begins at byte {at}: {data!r}")
        fields = _fields(head[1])
        at = head.end()
        if b"content-length" in fields:
            at += int(fields[b"content-length"])
            answers.append((status[1], {}))
            continue
        while True:
            chunk = _CHUNK.match(data, at)
            if chunk is None and at == len(data):
                answers.append((status[1], {}))  # the peer left before the end
                return answers
            if chunk is None:
                raise FuzzFailure(f"no chunk begins at byte {at}: {data!r}")
            size = int(chunk[1], 16)
            if not size:
                break
            at = chunk.end() + size + 2
            if data[at - 2 : at] != b"\r\n":
                raise FuzzFailure(f"no chunk ends at byte {at}: {data!r}")
        end = _FIELDS.match(data, chunk.end())
        names = [] if end is None else [line.partition(b": ")[0] for line in end[1].split(b"\r\n")]
        if end is None or names.count(b"grpc-status") != 1 or names.count(b"request_id") != 1:
            raise FuzzFailure(f"no end of an answer at byte {at}: {data!r}")
        answers.append((status[1], _fields(end[1])))
        at = end.end()
    return answers


def split_web_responses(data: bytes) -> list[bytes]:
    """Return the status of each response; the last may be incomplete.

    Raises:
        FuzzFailure: The bytes are not a sequence of HTTP/1.1 responses.
    """
    statuses: list[bytes] = []
    at = 0
    while at < len(data):
        status = _STATUS.match(data, at)
        head = status and _FIELDS.match(data, status.end())
        if status is None or head is None:
            raise FuzzFailure(f"no answer begins at byte {at}: {data!r}")
        statuses.append(status[1])
        fields = _fields(head[1])
        at = head.end() + int(fields.get(b"content-length", b"0"))
        while b"content-length" not in fields:
            chunk = _CHUNK.match(data, at)
            if chunk is None and at == len(data):
                return statuses  # the peer left before the end
            if chunk is None:
                raise FuzzFailure(f"no chunk begins at byte {at}: {data!r}")
            at = chunk.end() + int(chunk[1], 16)
            end = _FIELDS.match(data, at)
            if int(chunk[1], 16):
                at += 2
            elif end is not None:
                at = end.end()
                break
            else:
                raise FuzzFailure(f"no end of an answer at byte {at}: {data!r}")
    if at > len(data):
        raise FuzzFailure(f"an answer is too short: {data!r}")
    return statuses


def _fields(lines: bytes) -> dict[bytes, bytes]:
    return {name: value for line in lines.split(b"\r\n") if line for name, _, value in [line.partition(b": ")]}


async def fuzz(seed: int, *, inputs: int | None = None, seconds: float | None = None, is_web: bool = False) -> Fuzzer:
    """Run inputs of a seed.

    Args:
        seed: Seed of the random generator.
        inputs: Number of inputs to run.
        seconds: Seconds to run for.
        is_web: Whether they are of other protocols than gRPC.

    Raises:
        FuzzFailure: One failed; the text names the file that replays it.
    """
    until = None if seconds is None else time.monotonic() + seconds
    rng = Chance(seed)
    number = 0
    name = f"{_WEB}{seed}" if is_web else str(seed)
    with Fuzzer(is_web=is_web) as fuzzer:
        while (inputs is None or number < inputs) and (until is None or time.monotonic() < until):
            steps = make_input(rng, web_request if is_web else request)
            try:
                await fuzzer.run(steps)
            except Exception as error:
                FAILURES.mkdir(exist_ok=True)
                path = FAILURES / f"{name}-{number}.json"
                path.write_text(json.dumps([{"does": step.does, "data": step.data.hex()} for step in steps], indent=1))
                raise FuzzFailure(f"{error}\nreplay: .venv/bin/python -m tests.wire.fuzzing --replay {path}") from error
            number += 1
    print(f"seed {name}: {number} inputs, {fuzzer.calls} calls ran, {fuzzer.ok} ended OK, {fuzzer.refused} refused")
    return fuzzer


async def replay(path: Path) -> None:
    """Run one stored input.

    Raises:
        FuzzFailure: It still fails.
    """
    steps = [Step(step["does"], bytes.fromhex(step["data"])) for step in json.loads(path.read_text())]
    for step in steps:
        print(step.does, step.data or "")
    with Fuzzer(is_web=path.name.startswith(_WEB)) as fuzzer:
        await fuzzer.run(steps)


async def replay_all() -> None:
    """Run every stored input.

    Raises:
        FuzzFailure: One still fails; its file is printed last.
    """
    stored = sorted(FAILURES.glob("*.json"))
    for path in stored:
        print(f"replay: .venv/bin/python -m tests.wire.fuzzing --replay {path}")
        await replay(path)
    print(f"{len(stored)} inputs failed before, and none does now")


def main() -> int:
    """Fuzz, or replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one stored input")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="a run's seed, to run it again")
    options = parser.parse_args()
    try:
        if options.replay is not None:
            uvloop.run(replay(options.replay))
        else:
            uvloop.run(replay_all())
            for is_web in (False, True):
                seconds = float(os.environ.get("FUZZ_SECONDS", "60"))
                uvloop.run(fuzz(options.seed, seconds=seconds, is_web=is_web))
    except FuzzFailure as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
