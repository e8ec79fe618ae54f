"""Requests that two HTTP parsers could understand differently: no second request comes out of one, and no header.

Each is sent to the real ingress, as a part of one call to an application that is open to everyone. What is hidden in it
claims to be the call of somebody else. https://www.rfc-editor.org/rfc/rfc9112#section-11.2
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from sdk._replica_protocol import API_KEY_HEADER
from tests.security.greeting import EACH, RECEIVED, SAY_HELLO
from tests.security.world import CALLERS, OK, World
from tests.support.loops import PATIENCE_S
from tests.support.raw_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, connect, literal, request_block

HIDDEN = (
    f"POST {SAY_HELLO} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/grpc\r\nrequest_id: hidden\r\n"
    f"{API_KEY_HEADER}: batch\r\nx-forwarded-proto: https\r\ncontent-length: 5\r\n\r\n"
).encode() + bytes(5)
HEAD = f"POST {SAY_HELLO} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\napplication: open\r\n"
CHUNKED = b"5\r\n" + bytes(5) + b"\r\n0\r\n\r\n"


def one(*lines: str, body: bytes) -> bytes:
    return (HEAD + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode("latin-1") + body


LENGTH, CHUNKS = "content-length: 5", "transfer-encoding: chunked"
HTTP1 = {
    "a length and chunks": one(LENGTH, CHUNKS, body=CHUNKED + HIDDEN),
    "a length of zero and chunks": one("content-length: 0", CHUNKS, body=CHUNKED + HIDDEN),
    "two lengths": one(LENGTH, "content-length: 0", body=bytes(5) + HIDDEN),
    "a list of lengths": one("content-length: 5, 0", body=bytes(5) + HIDDEN),
    "a length with a sign": one("content-length: +5", body=bytes(5) + HIDDEN),
    "a length in hexadecimal": one("content-length: 0x5", body=bytes(5) + HIDDEN),
    "a space before the colon": one("content-length : 5", body=bytes(5) + HIDDEN),
    "a coding that is like chunks": one("transfer-encoding: xchunked", body=CHUNKED + HIDDEN),
    "two codings": one("transfer-encoding: identity, chunked", body=CHUNKED + HIDDEN),
    "chunks twice": one(CHUNKS, "transfer-encoding: chunked", body=CHUNKED + HIDDEN),
    "chunks in capitals": one("Transfer-Encoding: CHUNKED", body=CHUNKED + HIDDEN),
    "a folded header": one("x-a: b", f" {CHUNKS}", LENGTH, body=bytes(5) + HIDDEN),
    "a header after a bare line feed": one(f"x-a: b\n{API_KEY_HEADER}: batch", LENGTH, body=bytes(5) + HIDDEN),
    "a header after a bare carriage return": one(f"x-a: b\r{API_KEY_HEADER}: batch", LENGTH, body=bytes(5) + HIDDEN),
    "a NUL in a header": one(f"x-a: b\0{API_KEY_HEADER}: batch", LENGTH, body=bytes(5) + HIDDEN),
    "a chunk's size with a sign": one(CHUNKS, body=b"+5\r\n" + bytes(5) + b"\r\n0\r\n\r\n" + HIDDEN),
    "an extension of a chunk": one(CHUNKS, body=b"5;a=\n0\r\n" + bytes(5) + b"\r\n0\r\n\r\n" + HIDDEN),
    "a trailer of the body": one(CHUNKS, body=CHUNKED[:-2] + f"{API_KEY_HEADER}: batch\r\n\r\n".encode() + HIDDEN),
    "a message that is a request": one(f"content-length: {len(HIDDEN)}", body=HIDDEN),
    "a request with the whole address": one(LENGTH, body=bytes(5)).replace(b" /", b" http://x/", 1) + HIDDEN,
    "an upgrade": one("connection: upgrade", "upgrade: h2c", LENGTH, body=bytes(5) + HIDDEN),
    "another version": one(LENGTH, body=bytes(5)).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + HIDDEN,
}
INJECTED = f"b\r\n{API_KEY_HEADER}: batch\r\nrequest_id: hidden"
HTTP2: dict[str, tuple[tuple[str, str], ...]] = {
    "line ends in a value": (("x-a", INJECTED),),
    "line ends in the request id": (("request_id", INJECTED),),
    "line ends in a name": ((f"x-a: b\r\n{API_KEY_HEADER}", "batch"),),
    "a space in a name": ((f"{API_KEY_HEADER} ", "batch"),),
    "a colon in a name": ((f"{API_KEY_HEADER}:", "batch"),),
    "capitals": ((API_KEY_HEADER.upper(), "batch"),),
    "a header of HTTP/1.1 for chunks": (("transfer-encoding", "chunked"),),
    "a header of HTTP/1.1 for the connection": (("connection", API_KEY_HEADER),),
    "a length that is too short": (("content-length", "0"),),
    "a length that is too long": (("content-length", "5000"),),
    "two lengths": (("content-length", "5"), ("content-length", "0")),
    "a second path": ((":path", EACH),),
    "a second authority": (("host", "replica"),),
}


def reached() -> list[tuple[str, list[bytes]]]:
    """Return what has reached a handler, apart from the calls of somebody whom nobody knows."""
    return [(request_id, identities) for request_id, identities in RECEIVED if identities or request_id == "hidden"]


@pytest.fixture(autouse=True)
def nothing_received() -> None:
    RECEIVED.clear()


def trust(world: World, protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=world.authority.decode())
    context.set_alpn_protocols([protocol])
    return context


async def serves(world: World) -> bool:
    """Return True if a call of another connection ends OK, and with it all that a replica got before has begun."""
    answer = await asyncio.to_thread(world.call, CALLERS["nobody"], SAY_HELLO, "open")
    return answer.status == OK


@pytest.mark.parametrize("kind", HTTP1)
async def test_no_request_comes_out_of_another_one(world: World, kind: str) -> None:
    context = trust(world, "http/1.1")
    reader, writer = await asyncio.open_connection("localhost", world.port, ssl=context)
    writer.write(HTTP1[kind])
    writer.write(b"GET /-/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    try:
        await asyncio.wait_for(reader.read(), PATIENCE_S)  # until Envoy closes
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.transport.abort()
    assert await serves(world)
    assert reached() == []


@pytest.mark.parametrize("kind", HTTP2)
async def test_no_header_comes_out_of_another_one(world: World, kind: str) -> None:
    async with connect(world.port, context=trust(world, "h2")) as client:
        stream = client.new_stream()
        block = request_block(SAY_HELLO, ("application", "open")) + b"".join(literal(*each) for each in HTTP2[kind])
        client.send(HEADERS, END_HEADERS, block, stream)
        client.send(DATA, END_STREAM, bytes(5) + HIDDEN, stream)
        await client.wait_ended(stream)
    assert await serves(world)
    assert reached() == []
