"""Keys that the proxy reads: by URL, with rotation and a server that fails; and files that others can read."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from sdk._ingress import credentials
from sdk._ingress.credentials import Credentials
from sdk._ingress.proxy import NodeProxy
from sdk._ingress.registry import ProxyState
from sdk._xds.snapshot import Snapshot
from sdk.access import Access, JwtIssuer
from tests.support.loops import PATIENCE_S
from tests.support.ports import free_port
from tests.support.tokens import Issuer

ISSUER, NEXT = Issuer("https://id.example.org"), Issuer("https://id.example.org", "k2")


class KeyServer(HTTPServer):
    """Serves a JSON Web Key Set on 127.0.0.1.

    Attributes:
        status: HTTP status of its responses.
        text: Their body.
        asked: Requests so far.
    """

    status, text, asked = 200, ISSUER.jwks, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jwks.json"


class _Handler(BaseHTTPRequestHandler):
    server: KeyServer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.text.encode())

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with KeyServer(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_url_that_can_not_be_reached() -> None:
    it, url = Credentials(), f"http://127.0.0.1:{free_port()}/jwks.json"
    await it.load(Access(issuers=(JwtIssuer(ISSUER.name, url),)))
    assert it.problem == f"access: {url} can't be read: connection refused"


async def test_keys_of_a_url_rotate_and_stay_while_the_server_fails(
    key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    it = Credentials()
    await it.load(Access(issuers=(JwtIssuer(ISSUER.name, key_server.url, refresh_s=300),)))
    assert it.keys.jwks == {ISSUER.name: ISSUER.jwks}
    key_server.text = NEXT.jwks
    now += 299
    await it._refresh()
    assert key_server.asked == 1, "it asks as often as the option says"
    now += 2
    await it._refresh()
    assert it.keys.jwks == {ISSUER.name: NEXT.jwks}
    for status, text, said in (
        (500, "", "Internal Server Error"),
        (200, "<html>", "is not a JSON Web Key Set"),
        (200, '{"keys": []}', "has no keys"),
        (200, '{"keys": [{"kty": "RSA", "kid": "k1"}]}', "has no key for signatures of tokens"),
        (200, '{"keys": [{"kty": "EC", "crv": "secp256k1", "x": "AQ", "y": "AQ"}]}', "has no key for signatures"),
        (200, '{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQ", "alg": "RSA-OAEP"}]}', "has no key for signatures"),
        (200, "[" * 100_000, "is not a JSON Web Key Set"),
        (200, "x" * ((1 << 20) + 1), "it has more than 1048576 bytes"),
    ):
        key_server.status, key_server.text = status, text
        now += 301
        await it._refresh()
        assert it.keys.jwks == {ISSUER.name: NEXT.jwks}, "the last valid keys stay"
        assert key_server.url in it.problem
        assert said in it.problem
        assert "the last valid keys stay in force" in it.problem
    key_server.status, key_server.text = 200, ISSUER.jwks
    now += 11  # after a failure it does not wait as long
    await it._refresh()
    assert (it.keys.jwks, it.problem) == ({ISSUER.name: ISSUER.jwks}, "")


async def test_a_server_that_is_down_at_the_start_is_named() -> None:
    with HTTPServer(("127.0.0.1", 0), _Handler, bind_and_activate=True) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/jwks.json"
    it = Credentials()
    await it.load(Access(issuers=(JwtIssuer(ISSUER.name, url),)))
    assert it.keys.jwks == {}, "no token of this issuer is accepted"
    assert url in it.problem
    assert "refused" in it.problem


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("api_keys", 0o600, None),
        ("api_keys", 0o640, "others can read or change it; make it 0600"),
        ("jwks", 0o644, None),
        ("jwks", 0o666, "others can change it; make it 0600"),
        ("secret jwks", 0o644, "others can read or change it; make it 0600"),
    ],
)
async def test_files_that_others_can_read_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, mode: int, said: str | None
) -> None:
    path = tmp_path / "file"
    secret = "c2VjcmV0LW9mLXRoZS1pc3N1ZXI"
    texts = {"api_keys": f"batch sha256:{'0' * 64}\n", "jwks": ISSUER.jwks}
    path.write_text(texts.get(name, f'{{"keys": [{{"kty": "oct", "k": "{secret}"}}]}}'))
    path.chmod(mode)
    is_keys = name == "api_keys"
    access = Access(api_keys=str(path)) if is_keys else Access(issuers=(JwtIssuer(ISSUER.name, str(path)),))
    it = Credentials()
    with caplog.at_level(logging.INFO, "sdk.ingress"):
        await it.load(access)
    assert it.problem == ""
    assert [record.getMessage() for record in caplog.records] == (
        [] if said is None else [f"{path} has mode {mode:04o}: {said}"]
    )
    assert secret not in caplog.text


async def test_a_key_in_the_clear_is_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text("batch sdk_my-secret-key\n")
    it = Credentials()
    await it.load(Access(api_keys=str(path)))
    assert "line 1: expected `NAME sha256:HEX`" in it.problem
    assert "my-secret" not in it.problem + caplog.text


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_pipe, "it is not a regular file"),
        (Path.mkdir, "it is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"batch sha256:\xff"), "invalid start byte"),
        (lambda path: path.write_text("batch sha256:00"), "line 1: expected"),
        (lambda path: path.write_bytes(bytes(1 << 21)), "more than 1048576 bytes"),
    ],
)
async def test_what_is_no_file_of_keys_leaves_the_last_ones_in_force(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path, keys = tmp_path / "keys", {"0" * 64: "batch"}
    path.touch(mode=0o600)
    path.write_text(f"batch sha256:{'0' * 64}\n")
    it = Credentials()
    assert (await it.load(Access(api_keys=str(path)))).api_keys == keys
    path.unlink()
    make(path)
    await asyncio.wait_for(it._refresh(), PATIENCE_S)  # it does not wait for a writer, or for the end
    assert it.keys.api_keys == keys
    assert said in it.problem
    assert "the last valid keys stay in force" in it.problem


async def test_keys_that_new_options_name_are_no_change_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_POLL_S", 0)
    begun, may_read, read_file = Event(), Event(), credentials._read_file

    def slow(path: str) -> str:
        begun.set()
        assert may_read.wait(PATIENCE_S)
        return read_file(path)

    monkeypatch.setattr(credentials, "_read_file", slow)
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text(f"batch sha256:{'0' * 64}\n")
    it, changes = Credentials(), asyncio.Queue[set[str]]()

    async def note() -> None:
        changes.put_nowait(set(it.keys.api_keys.values()))

    watch = asyncio.create_task(it.watch(note))
    load = asyncio.create_task(it.load(Access(api_keys=str(file))))
    await asyncio.to_thread(begun.wait)
    for _ in range(10):
        await asyncio.sleep(0)  # the watch wants to read now, and waits
    may_read.set()
    assert set((await load).api_keys.values()) == {"batch"}
    file.write_text(f"other sha256:{'1' * 64}\n")
    assert await changes.get() == {"other"}, "and no change before"
    watch.cancel()


async def test_new_keys_are_published_with_the_newest_routing_table() -> None:
    published: list[int] = []
    may_go_on = asyncio.Event()

    async def publish(snapshot: Snapshot) -> bool:
        published.append(snapshot.version)
        await may_go_on.wait()
        return True

    proxy: Any = NodeProxy.__new__(NodeProxy)
    proxy._turn, proxy._changed, proxy._state = asyncio.Lock(), asyncio.Event(), ProxyState("p", "n", "127.0.0.1:9000")
    proxy._ads = proxy._fallback_server = object()
    proxy._publisher = SimpleNamespace(publish=publish, rejected_applications=(), in_force=Snapshot(1))
    proxy._built_in, proxy._credentials = SimpleNamespace(notify=lambda: None), SimpleNamespace(problem="")
    proxy._store = SimpleNamespace(store=lambda tables: None)
    proxy._snapshot = Snapshot(1)
    newer = asyncio.create_task(proxy._publish(Snapshot(2)))
    keys = asyncio.create_task(proxy._on_new_keys())
    for _ in range(10):
        await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(newer, keys)
    assert published == [2, 2], "an older table after a newer one takes its rules of access back"
