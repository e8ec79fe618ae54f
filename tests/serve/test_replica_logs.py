"""Logs of a replica: what the user's loggers log, a line for each call, and tracebacks."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import io
import json
import logging
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator
from logging import handlers
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from ray._common.formatters import JSONFormatter
from ray.serve._private import logging_utils

from sdk._serve import replica_logs
from sdk._serve.internals import repair_redirected_print, request_context_setter
from sdk._serve.replica_logs import ReplicaLogs
from sdk._wire.traced_call import ServerSpans
from sdk.service import Cardinality
from tests.support import virtual_time
from tests.support.spans import collected
from tests.support.wire_rig import Peer, serving, turns


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [self.format(record) for record in self.records]


@pytest.fixture
def serve_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Ray Serve's logger as it is in a replica, and the loggers of the program as they are at first."""
    lines, serve = Lines(), logging.getLogger("ray.serve")
    before, root_level = serve.level, logging.root.level
    monkeypatch.setattr(serve, "handlers", [lines])
    monkeypatch.setattr(serve, "propagate", False)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(logging.getLogger("sdk"), "parent", logging.root)
    monkeypatch.setattr(replica_logs, "access_log_context", lambda: {"serve_access_log": True, "replica": "r1"})
    serve.setLevel(logging.INFO)
    logging.root.setLevel(logging.WARNING)
    yield lines
    serve.setLevel(before)
    logging.root.setLevel(root_level)


def start() -> ReplicaLogs:
    """Return the logs of a new replica."""
    for logger in (logging.root, logging.getLogger("ray.serve")):
        # Without those of pytest, which adds them for each phase of a test.
        logger.handlers[:] = [handler for handler in logger.handlers if isinstance(handler, Lines)]
    return ReplicaLogs()


def test_loggers_of_the_user_log_at_info_with_their_level(serve_log: Lines) -> None:
    start()
    user = logging.getLogger("shop.till")
    user.info("opened")
    user.debug("details")
    user.error("broken")
    assert serve_log.texts == ["INFO opened", "ERROR broken"]


def test_they_honour_the_level_of_ray_serves_configuration(serve_log: Lines) -> None:
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    start()
    logging.getLogger("shop.till").warning("nearly empty")
    logging.getLogger("shop.till").error("empty")
    assert serve_log.texts == ["ERROR empty"]


def test_a_program_that_configures_logging_keeps_its_handlers(serve_log: Lines) -> None:
    start()
    own = Lines()
    logging.basicConfig(handlers=[own], level=logging.DEBUG)
    logging.getLogger("shop.till").debug("details")
    assert (own.texts, serve_log.texts) == (["DEBUG details"], [])
    assert logging.root.level == logging.DEBUG


def test_lines_of_the_wire_server_reach_ray_serves_log(serve_log: Lines) -> None:
    logging.root.handlers.clear()
    logging.basicConfig(handlers=[Lines()])
    ReplicaLogs()
    logging.getLogger("sdk.wire").warning("still runs")
    assert serve_log.texts == ["WARNING still runs"]


async def answer(request: Int32Value) -> StringValue:
    if request.value:
        raise ValueError("not zero")
    return StringValue(value="x")


def call_each(logs: ReplicaLogs, *values: int) -> bool:
    """Call the method with each value, and return True if the end of a call is reported."""
    used: list[bool] = []

    async def scenario() -> None:
        async with serving() as serve:
            server = serve(unary=(Cardinality.UNARY_UNARY, answer))
            logs.follow_configuration(server)
            used.append(server.host.on_end is not None)
            for value in values:
                peer = Peer(server)
                peer.head("unary")
                peer.send(Int32Value(value=value))
                peer.end()
                await turns()
            peer = Peer(server)
            peer.head("none")
            peer.end()
            await turns()
            logs.flush()

    virtual_time.run(scenario())
    return used[0]


def test_each_call_is_one_line_as_ray_serve_writes_it(serve_log: Lines) -> None:
    logs = start()
    call_each(logs, 0, 1)
    lines = [record for record in serve_log.records if hasattr(record, "serve_access_log")]
    texts = [record.getMessage().rpartition(" ")[0] for record in lines]
    assert texts == ["CALL /t.T/unary OK", "CALL /t.T/unary INTERNAL", "CALL /t.T/none UNIMPLEMENTED"]
    assert all(record.getMessage().endswith("ms") for record in lines)
    assert {(record.levelname, record.__dict__["request_id"], record.__dict__["replica"]) for record in lines} == {
        ("INFO", "made", "r1")
    }


def test_the_line_of_a_call_whose_trace_begins_in_the_replica_has_its_id(serve_log: Lines) -> None:
    logs = start()

    async def scenario() -> None:
        with collected() as spans:
            async with serving() as serve:
                server = serve(unary=(Cardinality.UNARY_UNARY, answer))
                server.host.spans = ServerSpans(spans.tracing)
                logs.follow_configuration(server)
                Peer(server).call("unary", Int32Value())
                await turns()
                logs.flush()
            ids.append(f"{spans.one().context.trace_id:032x}")

    ids: list[str] = []
    virtual_time.run(scenario())
    assert [record.__dict__["trace_id"] for record in serve_log.records] == ids


@pytest.mark.parametrize("encoding", ["text", "json"])
def test_lines_in_ray_serves_file_are_those_of_its_own_handlers(
    serve_log: Lines, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = handlers.RotatingFileHandler(tmp_path / "replica.log", maxBytes=1 << 20, backupCount=1)
    file.setFormatter(JSONFormatter() if encoding == "json" else logging_utils.ServeFormatter("shop", "r1"))
    memory = handlers.MemoryHandler(2, target=file)
    memory.addFilter(logging_utils.ServeLogAttributeRemovalFilter())
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [serve_log, memory])
    logs = ReplicaLogs()
    memory.handle(logging.makeLogRecord({"msg": "before", "levelno": logging.INFO, "levelname": "INFO"}))
    call_each(logs, 0)
    expected = []
    for record in serve_log.records:
        memory.filter(record)
        expected.append(file.format(record))
    before, *lines = (tmp_path / "replica.log").read_text().splitlines()
    memory.close()
    file.close()
    assert "before" in before
    assert lines == expected
    assert len(lines) == 2


@contextlib.asynccontextmanager
async def one_call(logs: ReplicaLogs) -> AsyncIterator[None]:
    """Serve until one call has ended."""
    async with serving() as serve:
        server = serve(unary=(Cardinality.UNARY_UNARY, answer))
        logs.follow_configuration(server)
        peer = Peer(server)
        peer.call("unary", Int32Value())
        await turns()
        yield


def test_lines_are_written_soon_without_a_further_call(serve_log: Lines) -> None:
    logs = start()

    async def scenario() -> None:
        async with one_call(logs):
            assert not serve_log.records
            await asyncio.sleep(0.06)

    virtual_time.run(scenario())
    assert len(serve_log.records) == 1


def test_the_end_of_the_process_loses_no_line(serve_log: Lines) -> None:
    logs = start()

    async def scenario() -> None:
        async with one_call(logs):
            pass

    virtual_time.run(scenario())
    before = len(serve_log.records)
    assert logging.lastResort is not None
    logging.shutdown([weakref.ref(logging.lastResort)])  # what it does with every handler
    assert (before, len(serve_log.records)) == (0, 1)


@pytest.mark.parametrize("off", ["enable_access_log", "log_level"])
def test_no_line_and_no_work_when_the_configuration_says_so(serve_log: Lines, off: str) -> None:
    if off == "log_level":
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    else:
        serve_log.addFilter(logging_utils.log_access_log_filter)
    assert not call_each(start(), 0)
    assert serve_log.records == []


def test_a_change_of_the_configuration_counts_for_the_next_calls(serve_log: Lines) -> None:
    logs, serve = start(), logging.getLogger("ray.serve")
    assert call_each(logs)
    serve.setLevel(logging.WARNING)
    assert not call_each(logs)


def test_a_failed_call_has_a_traceback_and_not_tuples_in_the_log(
    serve_log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "print", logging_utils.redirected_print)  # RAY_SERVE_LOG_TO_STDERR=0
    call_each(start(), 1)
    (failed,) = [text for text in serve_log.texts if "failed" in text]
    assert "\nTraceback (most recent call last):\n  File " in failed
    assert failed.endswith("ValueError: not zero")
    assert "('" not in failed


def test_a_redirected_print_logs_and_still_writes_to_files(serve_log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "print", logging_utils.redirected_print)
    repair_redirected_print()
    print("one", "apple", sep="-")
    file = io.StringIO()
    print("one", "apple", file=file, end=".")
    assert ([text.rstrip() for text in serve_log.texts], file.getvalue()) == (["INFO one-apple"], "one apple.")


def test_a_print_that_is_not_redirected_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = print
    repair_redirected_print()
    assert print is before
    assert traceback.format_exception(ValueError("x")) == ["ValueError: x\n"]


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


async def log_a_line(request: Int32Value) -> StringValue:
    logging.getLogger("shop.till").info("paid")
    return StringValue(value="x")


@pytest.mark.parametrize("encoding", ["text", "json"])
@pytest.mark.parametrize("traceparent", [TRACEPARENT, "00-nothing-01", None])
def test_a_handlers_line_names_its_call_in_ray_serves_format(
    serve_log: Lines, encoding: str, traceparent: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = handlers.RotatingFileHandler(tmp_path / "replica.log", maxBytes=1 << 20, backupCount=1)
    file.setFormatter(JSONFormatter() if encoding == "json" else logging_utils.ServeFormatter("shop_Till", "r1"))
    memory = handlers.MemoryHandler(1, target=file)
    memory.addFilter(logging_utils.ServeContextFilter())
    memory.addFilter(logging_utils.ServeLogAttributeRemovalFilter())
    monkeypatch.setattr(logging.root, "handlers", [])
    logs = start()
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [memory])

    async def scenario() -> None:
        async with serving() as serve:
            server = serve(unary=(Cardinality.UNARY_UNARY, log_a_line))
            server.host.on_start = request_context_setter("shop")
            logs.follow_configuration(server)
            logs.follow_configuration(server)  # each two seconds; nothing is added twice
            peer = Peer(server)
            peer.head("unary", **({"traceparent": traceparent} if traceparent else {}))
            peer.send(Int32Value())
            peer.end()
            await turns()
            logging.getLogger("shop.till").info("outside of a call")
            logs.flush()

    virtual_time.run(scenario())
    memory.close()
    file.close()
    handled, outside, ended = (tmp_path / "replica.log").read_text().splitlines()
    trace_id = TRACE if traceparent == TRACEPARENT else None
    if encoding == "json":
        fields = json.loads(handled)
        assert (fields["message"], fields["request_id"], fields["application"]) == ("paid", "made", "shop")
        assert (fields["method"], fields.get("trace_id")) == ("/t.T/unary", trace_id)
        assert json.loads(outside).keys().isdisjoint({"method", "trace_id", "request_id"})
        assert (json.loads(ended)["method"], json.loads(ended).get("trace_id")) == ("/t.T/unary", trace_id)
    else:
        suffix = f" {trace_id}" if trace_id else ""
        assert handled.endswith(f" shop_Till r1 made /t.T/unary{suffix} -- paid")
        assert outside.endswith(" shop_Till r1 -- outside of a call")
        assert f" shop_Till r1 made{suffix} -- CALL /t.T/unary OK " in ended
