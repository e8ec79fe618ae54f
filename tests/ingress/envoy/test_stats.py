"""Envoy's statistics under our names."""

from __future__ import annotations

from sdk._ingress.envoy.stats import PATTERNS, parse_stats

TEXT = """\
HTTP/1.1 200 OK\r
content-type: text/plain\r
\r
cluster.app/one.upstream_cx_none_healthy: 1
cluster.app/one.upstream_rq_retry: 2
cluster.app/two.upstream_rq_retry: 3
cluster.app/two.upstream_rq_retry_overflow: 100
cluster.app/two.upstream_rq_timeout: 4
cluster.app/two.upstream_rq_pending_overflow: 5
cluster.app/two.upstream_cx_connect_fail: 6
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
http.grpc.rbac.denied: 16
grpc.http_local_rate_limit.enforced: 17
grpc.http_local_rate_limit.enabled: 100
http.grpc.downstream_rq_overload_close: 18
"""


def test_each_statistic_has_its_name_and_those_of_all_clusters_are_added_up() -> None:
    stats = parse_stats(TEXT)
    assert stats == {
        "no_healthy_replica": 1, "retries": 5, "timeout": 4, "overflow": 5, "failed_connects": 6, "connections": 7,
        "accepted_connections": 8, "client_resets": 9, "resets": 10, "refused_connections": 11, "tls_handshakes": 12,
        "tls_errors": 27, "token": 15, "no_rule": 16, "limit": 17, "memory": 18,
    }  # fmt: skip
    assert stats.keys() == PATTERNS.keys()
