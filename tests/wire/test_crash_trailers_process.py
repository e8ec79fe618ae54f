"""A replica that is killed in the middle of its responses, and the bytes that Envoy reads. With real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdk._replica_protocol import REPLICA_DIED
from sdk._wire.frames import pack_prefix
from tests.support.loops import PATIENCE_S

# A replica with methods that send one message (or none, a long one, or many) and then hang. It prints its port and the
# name of its unix socket.
REPLICA = """
import asyncio, os, sys
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue, Int32Value
from sdk.service import Cardinality, Method, MethodBinding
from sdk._web.protocols import serve_web
from sdk._wire.crash_trailers import CrashTrailers
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer

def binding(name, handler):
    method = Method(name, name, "/t.T/" + name, Cardinality.UNARY_STREAM, Int32Value, BytesValue)
    return MethodBinding(method, handler)

async def one(request):
    yield BytesValue(value=b"one")
    await asyncio.sleep(600)

async def none(request):
    await asyncio.sleep(600)
    yield BytesValue()

async def long(request):
    yield BytesValue(value=bytes(16 << 20))
    await asyncio.sleep(600)

async def beats(request):
    while True:
        yield BytesValue(value=b"beat")
        await asyncio.sleep(0.001)

async def whole(request):
    yield BytesValue(value=b"whole")

async def short(request):
    yield BytesValue(value=b"short")
    await asyncio.sleep(0.3)

async def early(request, grpc_context):
    await grpc_context.send_initial_metadata((("early", "yes"),))
    await asyncio.sleep(600)
    yield BytesValue()

async def main():
    handlers = one, none, long, beats, whole, short, early
    server = WireServer([binding(each.__name__, each) for each in handlers], WireSettings(1000))
    serve_web(server)
    loop = asyncio.get_running_loop()
    server.host.crash_trailers = CrashTrailers.start(loop)
    assert server.host.crash_trailers is not None
    print(await server.listen("127.0.0.1"), await server.listen_locally(), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.host.crash_trailers.close()
    await server.drain(quiet_s=0, grace_s=0)

uvloop.install()
asyncio.run(main())
"""

_BEAT = b"b\r\n\0\0\0\0\6\n\4beat\r\n"
MARK = "TEST_OF_CRASH_TRAILERS"


class Replica:
    port: int
    name: str

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.process = subprocess.Popen(
            [sys.executable, "-c", REPLICA],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, MARK: mark},
            text=True,
        )

    def __enter__(self) -> Replica:
        self.process.__enter__()
        assert self.process.stdout is not None
        port, self.name = self.process.stdout.readline().split()
        self.port = int(port)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.__exit__(None, None, None)

    def call(
        self, method: str, *, is_local: bool = False, headers: tuple[str, ...] = (), body: bytes = pack_prefix(0, 0)
    ) -> socket.socket:
        if is_local:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(10)
            connection.connect(f"\0{self.name}")
        else:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        headers = headers or ("content-type: application/grpc",)
        lines = [f"POST /t.T/{method} HTTP/1.1", *headers, "transfer-encoding: chunked"]
        head = "\r\n".join([*lines, f"request_id: id of {method}", "", ""])
        connection.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        return connection

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def others(self) -> list[int]:
        """Return the ids of the processes that this one has started or left behind."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes() and int(folder.name) != self.process.pid:
                    found.append(int(folder.name))
        return found


@pytest.fixture
def replica(request: pytest.FixtureRequest) -> Iterator[Replica]:
    with Replica(f"{os.getpid()} {request.node.name}") as started:
        yield started
        started.kill()
        await_none(started.others)


def await_none(processes: Callable[[], list[int]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while left := processes():
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = connection.recv(1 << 16)
        assert more, data
        data += more
    return data


def read_rest(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(1 << 16):
            data += more
    return data


def settle(replica: Replica) -> None:
    """Return after two checks of the replica for open responses, and a turn of its loop since."""
    # It checks twenty times a second. Each response shows that its loop ran after the time of a check, however late.
    for _ in range(3):
        time.sleep(0.11)
        with replica.call("whole") as connection:
            read_until(connection, b"grpc-status: 0")


def test_an_open_response_ends_unavailable_with_its_request_id(replica: Replica) -> None:
    with replica.call("one") as one, replica.call("early") as early:
        read_until(one, b"one\r\n")
        read_until(early, b"early: yes\r\n\r\n")
        settle(replica)
        replica.kill()
        for connection, method in ((one, "one"), (early, "early")):
            end = f"0\r\ngrpc-status: 14\r\ngrpc-message: {REPLICA_DIED}\r\nrequest_id: id of {method}\r\n\r\n"
            assert read_rest(connection) == end.encode()


def test_a_stream_of_another_protocol_says_so_in_its_body(replica: Replica) -> None:
    error = f'{{"code":"unavailable","message":"{REPLICA_DIED}"}}'
    as_json, kind = "content-type: application/json", "content-type: application/"
    trailers = f"grpc-status: 14\r\ngrpc-message: {REPLICA_DIED}\r\nrequest_id: id of one\r\n"
    calls = {
        f'{{"error":{error}}}\n': ((as_json,), b"0"),
        f"event: error\ndata: {error}\n\n": ((as_json, "accept: text/event-stream"), b"0"),
        f'{{"error":{error}}}': ((f"{kind}connect+proto",), pack_prefix(0, 0)),
        trailers: ((f"{kind}grpc-web+proto",), pack_prefix(0, 0)),
    }
    with contextlib.ExitStack() as stack:
        streams = {
            last: stack.enter_context(replica.call("one", headers=headers, body=body))
            for last, (headers, body) in calls.items()
        }
        for stream in streams.values():
            read_until(stream, b"\r\n\r\n")
        settle(replica)
        replica.kill()
        for last, stream in streams.items():
            assert read_rest(stream).endswith(f"{last}\r\n0\r\ncall-status: UNAVAILABLE\r\n\r\n".encode())


def test_a_response_that_has_not_begun_is_cut(replica: Replica) -> None:
    # Envoy then answers UNAVAILABLE itself, or retries the call on another replica.
    with replica.call("none") as none, replica.call("one") as one:
        read_until(one, b"one\r\n")
        settle(replica)
        replica.kill()
        assert read_rest(none) == b""


def test_no_trailers_are_sent_within_a_message(replica: Replica) -> None:
    with replica.call("long") as long:
        head = read_until(long, b"\r\n\r\n")
        settle(replica)
        replica.kill()
        received = head + read_rest(long)
    assert len(received) < 16 << 20, "the kernel holds no 16 MB"
    assert b"grpc-status" not in received


def test_a_long_message_that_was_read_is_followed_by_trailers(replica: Replica) -> None:
    with replica.call("long") as long:
        left = 16 << 20
        while left > 0:
            left -= len(long.recv(1 << 20))
        settle(replica)  # it has seen that the client has read everything
        replica.kill()
        assert read_rest(long).endswith(b"request_id: id of long\r\n\r\n")


def test_short_messages_over_a_unix_socket_never_withhold_the_trailers(replica: Replica) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        streams = [stack.enter_context(replica.call("beats", is_local=True)) for _ in range(20)]
        for stream in streams:
            read_until(stream, b"beat\r\n")
        reading = [pool.submit(read_rest, stream) for stream in streams]
        settle(replica)
        replica.kill()
        for each in reading:
            *beats, end = each.result().split(_BEAT)
            assert beats == [b""] * len(beats), "whole messages only"
            assert end.startswith(b"0\r\ngrpc-status: 14")
            assert end.endswith(b"request_id: id of beats\r\n\r\n")


def test_a_client_that_has_not_read_yet_reads_the_trailers_later(replica: Replica) -> None:
    with replica.call("beats", is_local=True) as stream:
        unread = 0
        while (more := count_unread(stream)) > unread or not more:  # until no more fits
            unread = more
            settle(replica)
        replica.kill()
        received = read_rest(stream)
    assert received.count(_BEAT) > 100
    assert received.endswith(b"request_id: id of beats\r\n\r\n")


def count_unread(connection: socket.socket) -> int:
    """Return the number of bytes that have arrived."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))[0])


def test_a_response_that_ended_normally_ends_once(replica: Replica) -> None:
    with replica.call("whole") as whole:
        answer = read_until(whole, b"request_id: id of whole\r\n\r\n")
        assert b"grpc-status: 0" in answer
        replica.kill()
        assert read_rest(whole) == b""


def test_an_idle_connection_closes_with_the_replica(replica: Replica) -> None:
    # If it stayed open a moment longer, Envoy might send the next call on it.
    with replica.call("one") as one, replica.call("short") as short:
        read_until(short, b"request_id: id of short\r\n\r\n")
        read_until(one, b"one\r\n")
        settle(replica)
        (other,) = replica.others()
        assert count_sockets(other) == 2, "its channel, and the open stream"
        replica.kill()
        assert b"grpc-status: 14" in read_rest(one)


def count_sockets(pid: int) -> int:
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since the folder was listed
            count += os.readlink(each).startswith("socket:")
    return count


def test_a_connection_that_the_replica_closes_is_closed(replica: Replica) -> None:
    with replica.call("one") as one:
        read_until(one, b"one\r\n")
        settle(replica)
        one.sendall(b"what is this")  # after the end of the request: rejected, and the connection ends
        rest = read_rest(one)
    assert rest.count(b"grpc-status") == 1
    assert b"grpc-status: 13" in rest


def test_signals_do_not_end_the_other_process(replica: Replica) -> None:
    with replica.call("one") as one:
        read_until(one, b"one\r\n")
        settle(replica)
        (other,) = replica.others()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(other, number)
        replica.kill()
        assert b"grpc-status: 14" in read_rest(one)


def test_a_replica_that_shuts_down_leaves_nothing(replica: Replica) -> None:
    assert len(replica.others()) == 1
    assert replica.process.stdin is not None
    replica.process.stdin.close()
    assert replica.process.wait(10) == 0
    await_none(replica.others)


def test_a_stopped_process_does_not_block_the_replica(replica: Replica) -> None:
    (other,) = replica.others()
    os.kill(other, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(os.kill, other, signal.SIGCONT)
        calls = [stack.enter_context(replica.call("one")) for _ in range(400)]  # more than the channel holds
        for call in calls:
            read_until(call, b"one\r\n")
    # All of them are closed. Packets that had no room are sent now, and the next response gets its trailers.
    with replica.call("whole") as whole:
        read_until(whole, b"grpc-status: 0")
    deadline = time.monotonic() + PATIENCE_S
    while count_sockets(other) > 1:
        assert time.monotonic() < deadline, "it still holds the sockets of calls that were closed"
        settle(replica)
    with replica.call("one") as one:
        read_until(one, b"one\r\n")
        settle(replica)
        replica.kill()
        assert b"grpc-status: 14" in read_rest(one)
