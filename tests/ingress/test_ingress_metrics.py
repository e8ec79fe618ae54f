"""Each metric of proxies and of the controller, with the event that moves it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from sdk._ingress import controller_metrics, proxy_metrics
from sdk._ingress.builtin.services import BuiltinServices
from sdk._ingress.envoy.stats import parse_certificates
from sdk._ingress.proxy_metrics import ENVOY_COUNTERS, ENVOY_REJECTIONS, ProxyMetrics
from sdk._ingress.registry import ProxyState, Registry, Replica
from sdk._xds.snapshot import Endpoint, Snapshot
from sdk.options import GrpcOptions
from tests.support import virtual_time
from tests.support.fake_metrics import NODE, Recorded, record_metrics
from tests.support.wire_rig import Peer, turns

Metrics = dict[str, Recorded]


@pytest.fixture
def of_proxy(monkeypatch: pytest.MonkeyPatch) -> tuple[ProxyMetrics, Metrics]:
    made = record_metrics(monkeypatch, proxy_metrics)
    return ProxyMetrics("n1", Path("admin.sock"), lambda: 7, has_tls=True), made


@pytest.mark.parametrize("name", ENVOY_COUNTERS)
def test_what_envoy_counts(of_proxy: tuple[ProxyMetrics, Metrics], name: str) -> None:
    exporter, made = of_proxy
    exporter.export_envoy({name: 3})
    exporter.export_envoy({name: 5})
    exporter.export_envoy({name: 2})  # another Envoy counts from zero
    assert made[f"sdk_ingress_{name}"].value(**NODE) == 7
    assert sum(len(metric.values) for metric in made.values()) == 2, "this one, and the open connections"


@pytest.mark.parametrize(("reason", "status"), ENVOY_REJECTIONS.items())
def test_what_envoy_answers_itself(of_proxy: tuple[ProxyMetrics, Metrics], reason: str, status: str) -> None:
    exporter, made = of_proxy
    exporter.export_envoy({reason: 3})
    assert made["sdk_ingress_rejected_requests"].value(**NODE, reason=reason, status_code=status) == 3


def test_what_the_gate_refuses(of_proxy: tuple[ProxyMetrics, Metrics]) -> None:
    exporter, made = of_proxy
    exporter.export_refused({("no_replica", grpc.StatusCode.UNAVAILABLE): 3})
    rejected = made["sdk_ingress_rejected_requests"]
    assert rejected.value(**NODE, reason="no_replica", status_code="UNAVAILABLE") == 3


def test_open_connections(of_proxy: tuple[ProxyMetrics, Metrics]) -> None:
    exporter, made = of_proxy
    exporter.export_envoy({"connections": 3})
    exporter.export_envoy({"connections": 2})
    assert made["sdk_ingress_connections"].value(**NODE) == 2


def test_calls_that_the_proxy_answers(of_proxy: tuple[ProxyMetrics, Metrics]) -> None:
    exporter, made = of_proxy

    async def no_descriptors(_: str) -> bytes | None:
        return None

    async def scenario() -> None:
        server = BuiltinServices(lambda: Snapshot(1), no_descriptors).server(GrpcOptions())
        server.host.attach(asyncio.get_running_loop())
        for path in ("/grpc.health.v1.Health/Check", "/any.Name/AtAll", "/an.Other/Name"):
            peer = Peer(server)
            peer.connection.data_received(
                f"POST {path} HTTP/1.1\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            )
            peer.send(b"")
            peer.end()
            await peer.answered()
        await turns()
        exporter.export_builtin(server)
        await server.drain(quiet_s=0, grace_s=0)

    virtual_time.run(scenario())
    builtin, rejected = made["sdk_ingress_builtin_requests"], made["sdk_ingress_rejected_requests"]
    assert builtin.value(**NODE, method="/grpc.health.v1.Health/Check", status_code="OK") == 1
    assert rejected.value(**NODE, reason="no_route", status_code="UNAVAILABLE") == 2
    assert len(rejected.values) == 1, "a client can name any method"


def test_drain_version_and_certificate(of_proxy: tuple[ProxyMetrics, Metrics], monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, made = of_proxy
    exports = 0

    async def fetch(_: Path) -> Any:
        nonlocal exports
        exports += 1
        if exports > 2:
            raise asyncio.CancelledError
        return {}

    async def fetch_expiry(_: Path) -> float:
        return 1798761600.0

    monkeypatch.setattr(proxy_metrics, "fetch_stats", fetch)
    monkeypatch.setattr(proxy_metrics, "fetch_certificate_expiry", fetch_expiry)
    drained = iter([0, 1])
    seen: list[float] = []

    def is_draining() -> bool:
        seen.append(made["sdk_ingress_draining"].value(**NODE))
        return bool(next(drained))

    with pytest.raises(asyncio.CancelledError):
        virtual_time.run(exporter.export_forever(lambda: None, is_draining))
    assert (seen, made["sdk_ingress_draining"].value(**NODE)) == ([0, 0], 1)
    assert made["sdk_ingress_table_version"].value(**NODE) == 7
    assert made["sdk_ingress_certificate_expiry_timestamp_seconds"].value(**NODE) == 1798761600.0


def test_the_first_certificate_to_expire_counts() -> None:
    ca, first, second = ({"expiration_time": f"20{year}-01-01T00:00:00Z"} for year in (26, 28, 27))
    text = json.dumps({"certificates": [{"ca_cert": [ca], "cert_chain": [first, second]}]})
    assert parse_certificates(text) == ssl.cert_time_to_seconds("Jan  1 00:00:00 2027 GMT")
    assert parse_certificates('{"certificates": []}') is None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def proxy(version: int, node_id: str = "n1") -> ProxyState:
    return ProxyState(f"p-{node_id}", node_id, "127.0.0.1:9000", version=version)


@pytest.fixture
def of_controller(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., None], Metrics, Clock]:
    made, clock = record_metrics(monkeypatch, controller_metrics), Clock()
    return controller_metrics.ControllerMetrics(clock).export, made, clock


def test_a_proxy_lags_until_it_has_the_newest_table(
    of_controller: tuple[Callable[..., None], Metrics, Clock],
) -> None:
    export, made, clock = of_controller
    lag = made["sdk_ingress_table_lag_seconds"]
    export(5, [proxy(5), proxy(4, "n2")], {})
    clock.now += 3
    export(6, [proxy(6), proxy(5, "n2")], {})  # a newer table does not begin the wait again
    assert (lag.value(node_id="n1"), lag.value(node_id="n2")) == (0, 3)
    export(6, [proxy(6), proxy(6, "n2")], {})
    assert lag.value(node_id="n2") == 0
    clock.now += 3
    export(7, [proxy(7), proxy(6, "n2")], {})
    clock.now += 3
    export(7, [proxy(7), proxy(6, "n2")], {})
    assert lag.value(node_id="n2") == 3
    export(7, [proxy(7)], {})
    assert lag.value(node_id="n2") == 0, "the node is gone"


def test_replicas_that_leave_and_replicas_that_are_lost(
    of_controller: tuple[Callable[..., None], Metrics, Clock],
) -> None:
    export, made, clock = of_controller
    registry = Registry(lease_s=5, proxy_lease_s=5, pause_s=100, options=GrpcOptions(), clock=clock)
    for name in ("a", "b", "c", "d"):
        registry.register(Replica("shop", "Till", ("shop.Till",), Endpoint(name, "127.0.0.1", 1)))
    assert registry.deregister("a")
    assert not registry.deregister("a")
    assert registry.deregister("d", "lost")
    export(1, [], registry.removed)
    clock.now += 10
    registry.expire()
    export(1, [], registry.removed)
    export(1, [], registry.removed)
    removed, labels = made["sdk_ingress_removed_replicas"], {"application": "shop", "deployment": "Till"}
    assert (removed.value(**labels, reason="left"), removed.value(**labels, reason="lost")) == (1, 3)
