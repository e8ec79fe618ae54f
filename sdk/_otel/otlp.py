"""The collector that ``OTEL_EXPORTER_OTLP_*`` variables name, for what is exported without OpenTelemetry's SDK.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/. Imports no part of OpenTelemetry.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from sdk.errors import OptionsError

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["grpc", "http/protobuf"]

_DEFAULTS: dict[Protocol, str] = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}


@dataclass(frozen=True, slots=True)
class Collector:
    """A server that takes OTLP.

    Attributes:
        host: Its name or IP address.
        port: Its port.
        path: Path of requests over HTTP; empty for gRPC.
        ca: Path of the certificates in PEM that sign its certificate; None for a connection without TLS.
        headers: Headers of each request. They may hold a secret.
    """

    host: str
    port: int
    path: str = ""
    ca: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def protocol(environment: Mapping[str, str], signal: Signal) -> Protocol:
    """Return the protocol of OTLP for a signal; gRPC by default.

    Args:
        environment: Variables by name.
        signal: The signal.

    Raises:
        OptionsError: The protocol does not exist, or is not supported.
    """
    variable, text = _variable(environment, signal, "PROTOCOL")
    for known in _DEFAULTS:
        if (text or "grpc") == known:
            return known
    raise OptionsError(f"{variable} must be one of {', '.join(_DEFAULTS)}, not {text!r}")


def log_collector(environment: Mapping[str, str]) -> Collector:
    """Return the collector of logs; on this machine by default.

    Args:
        environment: Variables by name.

    Raises:
        OptionsError: The value of a variable is wrong. The message names it.

    Example:
        >>> log_collector({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"})
        Collector(host='collector', port=4317, path='', ca=None)
        >>> log_collector({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
        Collector(host='localhost', port=4318, path='/v1/logs', ca=None)
    """
    spoken = protocol(environment, "logs")
    variable, url = _variable(environment, "logs", "ENDPOINT")
    parts = urlsplit(url or _DEFAULTS[spoken])
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise OptionsError(f"{variable} must be a URL such as {_DEFAULTS[spoken]}, not {url!r}")
    path = ""
    if spoken == "http/protobuf":
        # The variable of all signals has a base, that of one signal the whole path.
        is_whole = variable == "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
        path = (parts.path or "/") if is_whole else f"{parts.path.rstrip('/')}/v1/logs"
    ca = _certificates(environment) if parts.scheme == "https" else None
    return Collector(parts.hostname, port, path, ca, _headers(environment, spoken))


def _variable(environment: Mapping[str, str], signal: Signal, name: str) -> tuple[str, str]:
    """Return name and value of the variable that applies: that of the signal, if set, and otherwise that of all."""
    of_all = f"OTEL_EXPORTER_OTLP_{name}"
    of_signal = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
    variable = of_signal if environment.get(of_signal, "").strip() else of_all
    return variable, environment.get(variable, "").strip()


def _certificates(environment: Mapping[str, str]) -> str:
    variable, path = _variable(environment, "logs", "CERTIFICATE")
    found = path or ssl.get_default_verify_paths().cafile
    if found is None:
        raise OptionsError(f"{variable} must be the path of the CA certificates: this system has no own ones")
    if not os.path.isfile(found):
        raise OptionsError(f"{variable}: there is no file {found!r}")
    return found


def _headers(environment: Mapping[str, str], spoken: Protocol) -> tuple[tuple[str, str], ...]:
    """Return the headers, written as ``key=value,key=value`` with values in percent-encoding."""
    variable, text = _variable(environment, "logs", "HEADERS")
    headers = []
    for pair in filter(None, map(str.strip, text.split(","))):
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            # Without the text, which may be a secret.
            raise OptionsError(f"{variable} must be pairs key=value with commas between them")
        headers.append((unquote(key.strip()).lower(), unquote(value.strip())))
        if spoken == "grpc" and "%" in headers[-1][1]:  # it refuses "%", and sends "%%" as it is
            protocol = "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/protobuf"
            raise OptionsError(f"{variable}: Envoy can't send a value with % over gRPC; set {protocol}")
    return tuple(headers)
