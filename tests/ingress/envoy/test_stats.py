"""Envoy's statistics under our names, and what moves each of them in a real Envoy."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sdk._ingress.envoy.stats import PATTERNS, fetch_certificate_expiry, fetch_stats, parse_stats
from sdk._xds.bootstrap import build_bootstrap
from sdk._xds.tls import TlsConfig, write_secrets
from tests.support.certificates import Authority
from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S

TEXT = """\
HTTP/1.1 200 OK\r
content-type: text/plain\r
\r
cluster.app#one.upstream_cx_none_healthy: 1
cluster.app#one.upstream_rq_retry: 2
cluster.my.app#two#model.upstream_rq_retry: 3
cluster.app#two.upstream_rq_retry_overflow: 100
cluster.app#two.upstream_rq_pending_overflow: 5
cluster.app#two.upstream_cx_connect_fail: 6
cluster.otlp.upstream_rq_retry: 100
cluster.otlp.upstream_cx_connect_fail: 100
cluster.otlp.upstream_rq_pending_overflow: 100
cluster.fallback.upstream_cx_none_healthy: 100
http.grpc.downstream_cx_active: 7
http.grpc.downstream_cx_total: 8
http.admin.downstream_cx_total: 100
http.grpc.downstream_rq_rx_reset: 9
http.grpc.downstream_rq_tx_reset: 10
listener.127.0.0.1_9000.downstream_global_cx_overflow: 11
listener.127.0.0.1_9000.ssl.handshake: 12
listener.127.0.0.1_9000.ssl.connection_error: 13
listener.127.0.0.1_9000.ssl.fail_verify_error: 14
http.grpc.jwt_authn.denied: 15
http.grpc.lua.api_key_denied: 4
http.grpc.lua.executions: 100
http.grpc.rbac.denied: 16
grpc.http_local_rate_limit.enforced: 17
grpc.http_local_rate_limit.enabled: 100
http.grpc.downstream_rq_overload_close: 18
"""


def test_each_statistic_has_its_name_and_those_of_all_clusters_are_added_up() -> None:
    stats = parse_stats(TEXT)
    assert stats == {
        "no_healthy_replica": 1, "retries": 5, "api_key": 4, "overflow": 5, "failed_connects": 6, "connections": 7,
        "accepted_connections": 8, "client_resets": 9, "resets": 10, "refused_connections": 11, "tls_handshakes": 12,
        "tls_errors": 27, "token": 15, "no_rule": 16, "limit": 17, "memory": 18,
    }  # fmt: skip
    assert stats.keys() == PATTERNS.keys()


def test_envoy_keeps_each_of_them() -> None:
    bootstrap = build_bootstrap(node_id="n", ads_socket="ads.sock", admin_socket="admin.sock")
    patterns = bootstrap.stats_config.stats_matcher.inclusion_list.patterns
    prefixes = tuple(each.prefix for each in patterns if each.prefix)
    suffixes = tuple(each.suffix for each in patterns if each.suffix)
    for line in TEXT.splitlines():
        name = line.partition(":")[0]
        if parse_stats(line):
            assert name.startswith(prefixes) or name.endswith(suffixes), name


GREET, METHOD = "/demo.Greeter/SayHello", {"one": {"Greeter": (["demo.Greeter"], ["a"])}}


async def until_stats(it: Rig, **expected: int) -> Counter[str]:
    """Return the statistics once they have these values; Envoy's workers pass them on periodically.

    Raises:
        TimeoutError: They have not in time.
    """
    stats: Counter[str] = Counter()

    async def wait() -> None:
        nonlocal stats
        while True:
            stats = await fetch_stats(it.folder / "envoy.admin.sock")
            if all(stats[name] == value for name, value in expected.items()):
                return
            await asyncio.sleep(0.05)

    try:
        await asyncio.wait_for(wait(), PATIENCE_S)
    except TimeoutError:
        raise TimeoutError(f"not {expected}: {stats}") from None
    return stats


async def test_connections_and_calls_that_clients_leave() -> None:
    async with rig("a") as it:
        await it.publish(METHOD)
        it.upstreams["a"].hold.clear()
        method = it.channel.unary_unary(GREET, request_serializer=None, response_deserializer=None)
        call = method(b"", timeout=PATIENCE_S, wait_for_ready=True)
        while not it.upstreams["a"].calls:
            await asyncio.sleep(0.01)
        await until_stats(it, connections=1, accepted_connections=1, client_resets=0)
        call.cancel()
        await until_stats(it, client_resets=1)
        it.upstreams["a"].hold.set()
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        await until_stats(it, connections=2, accepted_connections=2)
        writer.close()
        stats = await until_stats(it, connections=1)
        assert (stats["accepted_connections"], stats["resets"]) == (2, 0)


async def test_a_stream_that_its_replica_cuts_is_reset() -> None:
    async with rig("a") as it:
        await it.publish(METHOD)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
        it.upstreams["a"].raw_response = head + b"5\r\n\0\0\0\0\0\r\n"
        assert await it.answers(GREET) == "INTERNAL"
        await until_stats(it, resets=1)


async def test_a_replica_that_does_not_listen_and_none_at_all() -> None:
    async with rig("a", "gone") as it:
        await it.upstreams["gone"].stop()
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["gone"])}, "two": {"Other": (["demo.Other"], [])}})
        assert await it.answers(GREET, ("application", "one")) == "UNAVAILABLE"
        assert await it.answers("/demo.Other/Get", ("application", "two")) == "UNAVAILABLE"
        stats = await until_stats(it, no_healthy_replica=1)
        assert stats["failed_connects"] == stats["retries"] + 1 >= 2, "each try is a connection"


async def test_tls_handshakes_and_the_certificate(tmp_path: Path) -> None:
    authority = Authority("tests")
    certificate, key = authority.sign("server", dns=("localhost",), valid_hours=5).write(tmp_path, "server")
    async with rig("a") as it:
        tls = TlsConfig(certificate, key, str(it.folder / "secrets"))
        write_secrets(tls)
        it.config = replace(it.config, tls=tls)
        await it.publish(METHOD)
        context = ssl.create_default_context(cadata=authority.certificate.decode())
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", it.port, ssl=context, server_hostname="localhost")
        await until_stats(it, tls_handshakes=1, tls_errors=0)
        _, stranger = await asyncio.open_connection("127.0.0.1", it.port)
        stranger.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # in plain text
        await until_stats(it, tls_handshakes=1, tls_errors=1)
        writer.close()
        stranger.close()
        expiry = await fetch_certificate_expiry(it.folder / "envoy.admin.sock")
    assert expiry is not None
    assert 4 * 3600 < expiry - time.time() < 6 * 3600


async def test_connections_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk._xds.overload.max_connections", lambda: 1)
    async with rig("a") as it:
        await it.publish(METHOD)
        assert await it.answers(GREET) == "a"
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()
        await until_stats(it, refused_connections=1, connections=1)
