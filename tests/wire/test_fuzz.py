"""A fixed run of the fuzzer; ``make fuzz`` runs a longer one from a new seed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sdk._wire.connection import Connection
from tests.support.loops import on_uvloop
from tests.wire import fuzzing


@pytest.mark.timeout(600)
@on_uvloop
async def test_a_fixed_run_finds_no_error() -> None:
    fuzzer = await fuzzing.fuzz(20_000, inputs=100_000)
    assert fuzzer.ok > 10_000
    assert fuzzer.refused > 10_000


@pytest.mark.timeout(600)
@on_uvloop
async def test_a_fixed_run_of_other_protocols_finds_no_error() -> None:
    fuzzer = await fuzzing.fuzz(20_000, inputs=5_000, is_web=True)
    assert fuzzer.ok > 500
    assert fuzzer.refused > 500


def test_the_fuzzer_finds_an_error_and_replays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each search has its own loop: anything that one leaves there would be found by the next.
    as_it_was = Connection.on_message_complete

    def swap(self: Connection) -> None:
        self._call = None  # forgets the ongoing call, so that a second one runs at the same time

    monkeypatch.setattr(Connection, "on_message_complete", swap)
    monkeypatch.setattr(fuzzing, "FAILURES", tmp_path)
    with pytest.raises(fuzzing.FuzzFailure, match=r"replay: .*json"):
        asyncio.run(fuzzing.fuzz(1, inputs=1000))
    (stored,) = tmp_path.iterdir()
    with pytest.raises(fuzzing.FuzzFailure):
        asyncio.run(fuzzing.replay(stored))
    with pytest.raises(fuzzing.FuzzFailure):
        asyncio.run(fuzzing.replay_all())
    monkeypatch.setattr(Connection, "on_message_complete", as_it_was)
    asyncio.run(fuzzing.replay(stored))
    asyncio.run(fuzzing.replay_all())
    assert stored.exists(), "the failing input is stored"


@pytest.mark.parametrize(
    "written",
    [
        b"nonsense",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ngrpc-status: 0\r\nrequest_id: 1\r\n\r\n0\r\n",
    ],
)
def test_the_fuzzer_rejects_a_malformed_response(written: bytes) -> None:
    with pytest.raises(fuzzing.FuzzFailure):
        fuzzing.split_responses(written)
