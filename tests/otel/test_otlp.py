"""The collector of logs, from variables of OpenTelemetry."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sdk._ingress.envoy.listening import access_log_config
from sdk._otel.otlp import Collector, log_collector
from sdk.errors import OptionsError
from sdk.options import GrpcOptions

OF_ALL, OF_LOGS = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_LOGS_"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Collector("localhost", 4317)),
        ({f"{OF_ALL}ENDPOINT": "http://a:1", f"{OF_LOGS}ENDPOINT": "http://[::1]:2"}, Collector("::1", 2)),
        ({f"{OF_ALL}ENDPOINT": "http://a"}, Collector("a", 80)),
        (
            {f"{OF_ALL}PROTOCOL": "http/protobuf", f"{OF_ALL}ENDPOINT": "http://a:1/base/"},
            Collector("a", 1, "/base/v1/logs"),
        ),
        (
            {f"{OF_LOGS}PROTOCOL": "http/protobuf", f"{OF_LOGS}ENDPOINT": "http://a:1/whole"},
            Collector("a", 1, "/whole"),
        ),
        ({f"{OF_LOGS}PROTOCOL": "http/protobuf", f"{OF_LOGS}ENDPOINT": "http://a:1"}, Collector("a", 1, "/")),
        (
            {f"{OF_ALL}HEADERS": "Api-Key=a%3Db, team = shop ,"},
            Collector("localhost", 4317, headers=(("api-key", "a=b"), ("team", "shop"))),
        ),
        (
            {f"{OF_ALL}ENDPOINT": "https://a", f"{OF_ALL}CERTIFICATE": __file__},
            Collector("a", 443, ca=__file__),
        ),
    ],
)
def test_the_collector(variables: dict[str, str], expected: Collector) -> None:
    assert log_collector(variables) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {f"{OF_ALL}ENDPOINT": "collector:4317"},
            f"{OF_ALL}ENDPOINT must be a URL such as http://localhost:4317,",
        ),
        (
            {f"{OF_LOGS}ENDPOINT": "http://a:port"},
            f"{OF_LOGS}ENDPOINT must be a URL such as http://localhost:4317,",
        ),
        ({f"{OF_ALL}PROTOCOL": "http/json"}, f"{OF_ALL}PROTOCOL must be one of grpc, http/protobuf, not 'http/json'"),
        ({f"{OF_ALL}HEADERS": "secret"}, f"{OF_ALL}HEADERS must be pairs key=value with commas between them"),
        (
            {f"{OF_ALL}HEADERS": "key=50%25"},
            f"{OF_ALL}HEADERS: Envoy can't send a value with % over gRPC; set {OF_LOGS}PROTOCOL=http/protobuf",
        ),
        (
            {f"{OF_ALL}ENDPOINT": "https://a", f"{OF_LOGS}CERTIFICATE": "/no/ca.crt"},
            f"{OF_LOGS}CERTIFICATE: there is no file '/no/ca.crt'",
        ),
    ],
)
def test_wrong_values_name_their_variable_and_no_secret(variables: dict[str, str], message: str) -> None:
    with pytest.raises(OptionsError) as error:
        log_collector(variables)
    assert str(error.value).startswith(message)
    assert "secret" not in str(error.value)


def test_a_system_without_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: type("Paths", (), {"cafile": None}))
    with pytest.raises(OptionsError, match=f"{OF_ALL}CERTIFICATE must be the path of the CA certificates"):
        log_collector({f"{OF_ALL}ENDPOINT": "https://a"})


def test_headers_are_not_in_its_text() -> None:
    assert "secret" not in repr(log_collector({f"{OF_ALL}HEADERS": "key=secret"}))


def test_a_proxy_serves_without_a_log_whose_variables_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = GrpcOptions(access_log="otlp", access_log_failed_only=True)
    monkeypatch.setenv(f"{OF_ALL}ENDPOINT", "http://collector:4317")
    config = access_log_config(options, tmp_path)
    assert config is not None
    assert (config.target, config.service, config.failed_only) == (Collector("collector", 4317), "grpc-ingress", True)
    monkeypatch.setenv(f"{OF_ALL}ENDPOINT", "collector")
    with caplog.at_level(logging.ERROR, "sdk.ingress"):
        assert access_log_config(options, tmp_path) is None
    assert f"there is no access log: {OF_ALL}ENDPOINT must be a URL" in caplog.text
