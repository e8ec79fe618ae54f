"""Entries in the log files of a node: their fields, the filters, and what is new since the last reading."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sdk._serve.node_logs import NodeLogs, Query

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TEXT = "INFO 2026-11-28 21:06:29,141 shop_Till x1 r1 /shop.Till/Buy {} -- paid"
#: A line of each kind, and the fields that it has.
LINES: list[tuple[str, str, dict[str, object]]] = [
    ("serve/replica_shop_Till_x1.log", TEXT.format(TRACE), {"method": "/shop.Till/Buy", "trace_id": TRACE}),
    ("serve/replica_shop_Till_x1.log", TEXT.format("").replace("  ", " "), {"method": "/shop.Till/Buy"}),
    (
        "serve/replica_shop_Till_x1.log.1",
        "ERROR 2026-11-28 21:06:29,141 shop_Till x1 my id -- CALL /shop.Till/Buy INTERNAL 2.1ms",
        {"method": "/shop.Till/Buy", "request_id": "my id", "level": "ERROR"},
    ),
    (
        "serve/replica_shop_Till_x1.log",
        "INFO 2026-11-28 21:06:29,141 shop_Till x1 -- up -- now",
        {"message": "up -- now"},
    ),
    (
        "serve/replica_shop_Till_x1.log",
        json.dumps(
            {
                "asctime": "2026-11-28 21:06:29,141",
                "levelname": "INFO",
                "message": "paid",
                "application": "shop",
                "deployment": "Till",
                "replica": "x1",
                "request_id": "r1",
                "method": "/shop.Till/Buy",
                "trace_id": TRACE,
            }
        ),
        {"request_id": "r1", "method": "/shop.Till/Buy", "trace_id": TRACE, "message": "paid"},
    ),
    ("serve/grpc_proxy_0123.log", "WARNING 2026-11-28 21:06:29,141 grpc_proxy 0123 -- slow", {"source": "proxy"}),
    ("serve/grpc_controller_7.log", "INFO 2026-11-28 21:06:29,141 grpc_controller 7 -- x", {"source": "controller"}),
    ("serve/controller_7.log", "INFO 2026-11-28 21:06:29,141 controller 7 -- Deploying", {"source": "serve"}),
    (
        "proxy/envoy.log",
        "[2026-11-28 21:06:29.141][7][warning][main] [a.cc:1] odd",
        {"source": "envoy", "level": "WARNING"},
    ),
]
AT = time.mktime((2026, 11, 28, 21, 6, 29, 0, 0, -1)) + 0.141


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for folder in ("serve", "proxy"):
        (tmp_path / folder).mkdir()
    return tmp_path


def logs_of(node: Path) -> NodeLogs:
    return NodeLogs(str(node / "serve"), str(node / "proxy"))


@pytest.mark.parametrize(("file", "line", "fields"), LINES)
def test_fields_of_a_line(node: Path, file: str, line: str, fields: dict[str, object]) -> None:
    (node / file).write_text(f"{line}\n")
    (entry,) = logs_of(node).read(Query())
    assert entry["time"] == pytest.approx(AT)
    assert entry.items() >= fields.items()
    if "replica_" in file:
        assert (entry["application"], entry["deployment"], entry["replica"]) == ("shop", "Till", "x1")
        assert (entry["source"], entry["trace_id"]) == ("replica", fields.get("trace_id"))


ACCESS = {
    "time": "2026-11-28T21:06:29.141Z",
    "request_id": "r1",
    "application": "shop",
    "replica": "-",
    "method": "/shop.Till/Buy",
    "status": "OK",
    "duration_ms": 2,
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
}


@pytest.mark.parametrize("in_text", [True, False])
@pytest.mark.parametrize("place", ["file", "stdout"])
def test_the_access_log(node: Path, in_text: bool, place: str) -> None:
    path = node / "access.log"
    if place == "stdout":
        (node / "proxy" / "stdout").symlink_to(path)
    shown = " ".join(f'{name}="{value}"' for name, value in ACCESS.items() if name != "time")
    path.write_text(f"{ACCESS['time']} {shown}\n" if in_text else f"noise\n{json.dumps(ACCESS)}\n")
    (entry,) = logs_of(node).read(Query(request_id="r1", access_log=str(path) if place == "file" else "stdout"))
    assert (entry["source"], entry["application"], entry["trace_id"]) == ("access", "shop", TRACE)
    assert entry["message"] == "/shop.Till/Buy OK 2"
    assert entry["time"] == pytest.approx(1795899989.141)
    assert entry["call"]["status"] == "OK"
    assert entry["replica"] is None, "the proxy has answered"


def test_a_traceback_belongs_to_the_line_before_it(node: Path) -> None:
    file = node / "serve/replica_shop_Till_x1.log"
    file.write_text(f"{TEXT.format(TRACE)}\nTraceback:\n  File\n")
    logs = logs_of(node)
    (entry,) = logs.read(Query(request_id="r1"))
    assert entry["message"] == "paid\nTraceback:\n  File"
    with file.open("a") as more:
        more.write("ValueError: x\n")
    (rest,) = logs.read(Query(request_id="r1"))
    assert (rest["message"], rest["request_id"]) == ("ValueError: x", "r1")


def test_filters(node: Path) -> None:
    line = "INFO 2026-11-28 21:06:{:02},000 {} x1 {}-- {}\n"
    (node / "serve/replica_shop_Till_x1.log").write_text(line.format(3, "shop_Till", "r1 ", "third"))
    (node / "serve/replica_my_shop_Till_x1.log").write_text(line.format(1, "my_shop_Till", "r1 ", "first"))
    (node / "serve/replica_shop_Vault_x1.log").write_text(line.format(2, "shop_Vault", "r2 ", "second"))
    (node / "serve/grpc_proxy_0.log").write_text(line.format(4, "grpc_proxy", "", "call r1 is lost"))

    def found(**wanted: object) -> list[str]:
        query = Query(known=(("my_shop", "Till"), ("shop", "Vault")), **wanted)  # type: ignore[arg-type]
        return [str(entry["message"]).split()[-1] for entry in logs_of(node).read(query)]

    assert found() == ["first", "second", "third", "lost"]
    assert found(request_id="r1") == ["first", "third", "lost"]
    assert found(application="shop") == ["second", "third"]
    assert found(application="my_shop") == ["first"]
    assert found(deployment="Till") == ["first", "third"]
    assert found(tail=2) == ["third", "lost"]
    assert found(since=time.mktime((2026, 11, 28, 21, 6, 3, 0, 0, -1))) == ["third", "lost"]
    assert found(request_id="none") == []


def test_only_what_is_new_of_files_that_grow_rotate_and_are_truncated(node: Path) -> None:
    file, line = node / "serve/replica_shop_Till_x1.log", "INFO 2026-11-28 21:06:29,141 shop_Till x1 -- {}\n"
    file.write_text(line.format("one") + "INFO 2026-11-28 21:06:29,141 sh")
    logs = logs_of(node)

    def messages() -> list[str]:
        return [str(entry["message"]) for entry in logs.read(Query())]

    assert messages() == ["one"]
    with file.open("a") as more:
        more.write(line.format("two").removeprefix("INFO 2026-11-28 21:06:29,141 sh"))
    assert messages() == ["two"]
    with file.open("a") as more:
        more.write(line.format("before the rotation"))
    file.rename(f"{file}.1")
    file.write_text(line.format("after it"))
    assert messages() == ["after it", "before the rotation"]  # both at the same time
    (node / "serve/replica_shop_Till_x2.log").write_text(line.replace("x1", "x2").format("of a new replica"))
    assert messages() == ["of a new replica"]
    os.truncate(file, 0)
    file.write_text(line.format("cut"))
    assert messages() == ["cut"]


def test_a_file_of_somebody_else_is_an_error(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (node / "serve/replica_shop_Till_x1.log").write_text("x\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "replica_shop_Till_x1.log")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="replica_shop_Till_x1"):
        logs_of(node).read(Query())
