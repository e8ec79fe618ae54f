from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from sdk._otel.otlp import log_collector
from sdk._serve.node_logs import NodeLogs, Query
from sdk._xds import access_log, clusters
from sdk._xds.access_log import _FIELDS, AccessLogConfig
from sdk._xds.ads_server import ResourcesRejected
from tests.support.certificates import Authority
from tests.support.envoy_rig import rig
from tests.support.loops import PATIENCE_S
from tests.support.otlp_receiver import receiving, receiving_over_http
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

GREET = "/demo.Greeter/SayHello"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_each_call_is_logged_with_every_field_that_it_has(tmp_path: Path) -> None:
    log = tmp_path / "access.log"

    async def scenario() -> list[dict[str, Any]]:
        async with rig("a") as it:
            it.config = replace(it.config, access_log=AccessLogConfig(str(log)))
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
            metadata = (("request_id", 'a "b"'), ("multiplexed_model_id", "m"), ("traceparent", TRACEPARENT))
            assert await it.answers(GREET, *metadata) == "a"
            assert await it.answers(GREET, ("application", "none")) == "NOT_FOUND"
            return [json.loads(line) for line in (await lines(log, 2)).splitlines()]

    served, refused = sorted(await scenario(), key=lambda line: str(line["status"]), reverse=True)
    expected = {
        "request_id": 'a "b"',
        "application": "one",
        "deployment": "Greeter",
        "replica": "a",
        "method": GREET,
        "status": "OK",
        "model_id": "m",
        "traceparent": TRACEPARENT,
        "details": "via_upstream",
        "attempts": 1,
    }
    assert served.items() >= expected.items()
    assert served["peer"].startswith("127.0.0.1:")
    assert served["upstream"].startswith("127.0.0.1:")
    assert served["authority"].startswith("127.0.0.1:")
    assert "grpc-python" in served["user_agent"]
    assert served["timeout"].endswith(tuple("HMSmun"))  # a client of gRPC rounds 60 s to "1M"
    assert isinstance(served["duration_ms"], int)
    assert 0 <= served["upstream_ms"] <= served["duration_ms"] + 1
    assert (served["request_bytes"], served["time"][:2]) == (5, "20")
    assert served["response_bytes"] > 5
    assert served.keys() <= _FIELDS.keys()
    assert refused["message"]
    assert refused.keys().isdisjoint({"application", "deployment", "model_id", "traceparent"})
    assert refused["replica"] == "-", "the proxy has answered"
    assert len(refused["request_id"]) == 36, "the client got the same one"


async def test_a_call_that_reaches_no_replica_has_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(log)))
        await it.publish({"one": {"Greeter": (["demo.Greeter"], [])}})
        assert await it.answers(GREET) == "UNAVAILABLE"
        (line,) = map(json.loads, (await lines(log, 1)).splitlines())
    assert line.items() >= {"status": "UNAVAILABLE", "flags": "UH", "details": "no_healthy_upstream"}.items()
    assert (line["application"], line["deployment"]) == ("one", "Greeter")
    assert "No replica of application" in line["message"].replace("%20", " ")
    assert "replica" not in line


async def test_a_call_that_its_client_leaves(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(log), failed_only=True))
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
        it.upstreams["a"].hold.clear()
        call = it.channel.unary_unary(GREET)(b"")
        while not it.upstreams["a"].calls:
            await asyncio.sleep(0.01)
        call.cancel()
        (line,) = map(json.loads, (await lines(log, 1)).splitlines())
        it.upstreams["a"].hold.set()
    assert (line["flags"], line["replica"]) == ("DR", "a")
    assert line["details"] == "http2.remote_reset"


async def test_a_replica_that_takes_over_the_address_of_another_one(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(log)))
        for replica in ("first", "second"):
            it.upstreams["a"].name = replica
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
            deadline = time.monotonic() + PATIENCE_S
            logged = None
            while logged != replica:  # Envoy's workers get the endpoints after the acknowledgement
                assert time.monotonic() < deadline
                written = log.read_text().count("\n") if log.exists() else 0
                assert await it.answers(GREET) == replica
                logged = json.loads((await lines(log, written + 1)).splitlines()[-1])["replica"]


async def test_text_is_read_back_as_json_is(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(log), format="text"))
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
        assert await it.answers(GREET, ("request_id", "r 1"), ("traceparent", TRACEPARENT)) == "a"
        await lines(log, 1)
    (entry,) = NodeLogs(str(tmp_path), str(tmp_path)).read(Query(request_id="r 1", access_log=str(log)))
    assert (entry["application"], entry["deployment"], entry["replica"]) == ("one", "Greeter", "a")
    assert entry["message"].startswith(f"{GREET} OK ")
    assert entry["trace_id"] == TRACEPARENT[3:35]
    assert entry["call"].keys() == _FIELDS.keys()


async def test_a_trace_that_begins_in_the_replica(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(log)))
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntraceresponse: {TRACEPARENT}\r\n"
        it.upstreams["a"].raw_response = f"{head}grpc-status: 5\r\ncontent-length: 0\r\n\r\n".encode()
        assert await it.answers(GREET) == "NOT_FOUND"
        (line,) = map(json.loads, (await lines(log, 1)).splitlines())
    assert line["traceparent"] == TRACEPARENT


@pytest.mark.parametrize(
    ("filters", "logged"),
    [
        ({"failed_only": True}, {"NOT_FOUND"}),
        ({"slow_s": 0.05}, {"OK"}),
        ({"failed_only": True, "slow_s": 0.05}, {"OK", "NOT_FOUND"}),
    ],
)
async def test_only_failures_or_slow_calls(tmp_path: Path, filters: dict[str, Any], logged: set[str]) -> None:
    log = tmp_path / "access.log"
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(log), **filters))
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
        await it.answers(GREET, ("request_id", "fast"))
        await it.answers(GREET, ("application", "none"), ("request_id", "failed"))
        it.upstreams["a"].hold.clear()
        slow = asyncio.create_task(it.answers(GREET, ("request_id", "slow")))
        while it.upstreams["a"].calls < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.06)  # the call is to last
        it.upstreams["a"].hold.set()
        assert await slow == "a"
        found = {
            line["request_id"]: line["status"] for line in map(json.loads, (await lines(log, len(logged))).splitlines())
        }
    # On a slow machine a fast call may be slow.
    assert {found[name] for name in found.keys() - {"fast"}} == logged


async def test_a_log_file_that_can_not_be_opened_is_reported(tmp_path: Path) -> None:
    async with rig("a") as it:
        it.config = replace(it.config, access_log=AccessLogConfig(str(tmp_path / "no" / "access.log")))
        with pytest.raises(ResourcesRejected, match=r"no/access\.log"):
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})


@pytest.mark.parametrize("way", ["grpc", "grpc over TLS", "http/protobuf"])
async def test_a_collector_gets_each_call_with_every_field_that_it_has(tmp_path: Path, way: str) -> None:
    environment = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%3Db,x-team=shop", "OTEL_EXPORTER_OTLP_PROTOCOL": way[:4]}
    tls = None
    if way == "grpc over TLS":
        authority = Authority("collectors")
        tls = authority.sign("collector", dns=("localhost",))
        (tmp_path / "ca.crt").write_bytes(authority.certificate)
        environment["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(tmp_path / "ca.crt")
    elif way == "http/protobuf":
        environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = way
    with receiving(tls) if way != "http/protobuf" else receiving_over_http() as collector:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.address
        async with rig("a") as it:
            config = AccessLogConfig(log_collector(environment), service="calls")
            it.config = replace(it.config, access_log=config)
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
            metadata = (("request_id", "r1"), ("traceparent", TRACEPARENT))
            assert await it.answers(GREET, *metadata) == "a"
            assert await it.answers(GREET, ("application", "none"), ("request_id", "r2")) == "NOT_FOUND"
            found = {record.attributes["request_id"]: record for record in await asyncio.to_thread(collector.logs, 2)}
    served, refused = found["r1"], found["r2"]
    expected = {
        "application": "one",
        "deployment": "Greeter",
        "replica": "a",
        "method": GREET,
        "status": "OK",
        "traceparent": TRACEPARENT,
        "attempts": "1",
    }
    assert served.attributes.items() >= expected.items()
    assert served.body.startswith(f"CALL {GREET} OK ")
    assert served.body.endswith("ms")
    assert served.attributes.keys() == _FIELDS.keys() - {"time"}
    assert served.resource == {"service.name": "calls"}
    assert served.time > 1.7e9
    assert (served.headers["api-key"], served.headers["x-team"]) == ("a=b", "shop")
    assert way != "http/protobuf" or served.headers[":path"] == "/v1/logs"
    assert (refused.attributes["status"], refused.attributes["message"]) == ("NOT_FOUND", f"fallback {GREET}")
    absent = {name for name, value in refused.attributes.items() if value == "-"}
    assert absent == {"application", "deployment", "replica", "flags", "model_id", "traceparent", "tls_subject"}


async def test_calls_are_served_without_their_collector() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # the kernel accepts; nobody reads
        addresses = (f"127.0.0.1:{free_port()}", "collector.invalid:4317", f"127.0.0.1:{hanging.getsockname()[1]}")
        for address in addresses:
            async with rig("a") as it:
                target = log_collector({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"})
                it.config = replace(it.config, access_log=AccessLogConfig(target))
                await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
                assert await it.answers(GREET) == "a"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_request_to_a_collector_that_hangs_ends(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    for module in access_log, clusters:
        monkeypatch.setattr(module, "COLLECTOR_TIMEOUT", Duration(nanos=300_000_000))
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # the kernel accepts; nobody reads
        endpoint = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        async with rig("a") as it:
            target = log_collector({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
            it.config = replace(it.config, access_log=AccessLogConfig(target))
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
            await it.answers(GREET)
            async with asyncio.timeout(PATIENCE_S):
                while "upstream_rq_total: 1" not in (text := await it.admin("/stats?filter=cluster.otlp.upstream_rq")):
                    await asyncio.sleep(0.05)
                while "upstream_rq_active: 0" not in text:
                    await asyncio.sleep(0.05)
                    text = await it.admin("/stats?filter=cluster.otlp.upstream_rq")


async def lines(path: Path, count: int) -> str:
    """Return the log when it has this many lines: Envoy flushes it periodically."""
    for _ in range(300):
        if path.exists() and (text := path.read_text()).count("\n") >= count:
            return text
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} lines in {path}")
