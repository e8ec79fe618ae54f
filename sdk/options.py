"""Options of the ingress."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from sdk._replica_protocol import CONSOLE_PATH, DOCS_PATH
from sdk.access import Access, access_from
from sdk.errors import OptionsError

_PROXY_LOCATIONS = ("EveryNode", "HeadOnly")
# A year: longer times are meant as "never", and Envoy's durations have a maximum.
_MAX_S = 365 * 86400.0
# An Envoy without calls has 20 MiB, and one with a thousand applications 60 MiB.
_MIN_MEMORY = 64 << 20
_CLIENT_CERTIFICATE = ("required", "optional")
# https://www.rfc-editor.org/rfc/rfc6454#section-6.1
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s]+|null")
_HEADER = re.compile(r"[a-z0-9_.-]+")
_ERROR_DETAILS = ("traceback", "message", "none")
_LOG_FORMATS = ("json", "text")
#: Values of ``access_log`` that are not a path.
ACCESS_LOG_TARGETS = ("stdout", "otlp")

#: Options that can be changed while the ingress runs, because Envoy's listener does not depend on them.
LIVE_OPTIONS = frozenset(
    {
        "request_timeout_s",
        "route_by_service",
        "error_details",
        "max_receive_message_length",
        "grpc_servicer_functions",
        "access",
    }
)


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """Options of the ingress: addresses, limits, timeouts, TLS and logging.

    ``request_timeout_s``, ``route_by_service``, ``error_details``, ``max_receive_message_length``,
    ``grpc_servicer_functions`` and ``access`` can be changed while the ingress runs, with :func:`sdk.start` or
    :func:`sdk.run`.

    Attributes:
        host: IP address that Envoy listens on, on every node with a proxy.
        port: TCP port, from 1 to 65535.
        proxy_location: ``"EveryNode"`` or ``"HeadOnly"``.
        request_timeout_s: Seconds after which a call ends DEADLINE_EXCEEDED; None for no limit except the client's
            deadline.
        route_by_service: With several applications, route a call without ``application`` metadata to the only
            application that serves its service.
        error_details: Part of a handler's exception that clients receive: its traceback (as in Ray Serve's guide), its
            message, or none.
        max_receive_message_length: Maximum length of a request message, in bytes, and of what a compressed response
            to a call through a handle becomes.
        max_metadata_bytes: Maximum bytes of metadata in a request, keys and values. A call with more ends
            RESOURCE_EXHAUSTED; one with more than 256 KiB is reset, which clients report as INTERNAL.
        max_concurrent_streams: Maximum number of concurrent calls on one client connection.
        grpc_servicer_functions: The only services that clients can call; None for all deployed services. Name each one
            as in Ray Serve, by the import path of its generated function
            (``"greet_pb2_grpc.add_GreeterServicer_to_server"``), or by its full name (``"greet.Greeter"``) if the last
            part of the name starts with a capital letter. Import paths are resolved once, where :func:`sdk.start` runs.
            https://docs.ray.io/en/latest/serve/advanced-guides/grpc-guide.html
        keepalive_time_s: Seconds between two HTTP/2 PINGs to a client, which detect clients that are gone without
            closing their connection; None for no PINGs.
        keepalive_timeout_s: Seconds that a client has to answer a PING before its connection is closed.
        max_connection_idle_s: Seconds without a call after which a connection is closed; None for no limit.
        max_connection_age_s: Seconds after which a client gets a GOAWAY and connects again, for example to another node
            behind a load balancer. Running calls are not interrupted. None for no limit.
        envoy_concurrency: Number of Envoy's worker threads; None for one per core.
        max_envoy_memory_bytes: Memory that Envoy may allocate on each node. Close to it, new calls end
            RESOURCE_EXHAUSTED, new connections are closed, and the calls with the most buffered data are reset. None
            for no limit.
        tls_certificate: Path of Envoy's certificate chain in PEM, on every node with a proxy; None for plain text. To
            replace it without a restart, move a new file over it, or over a symbolic link in its path.
        tls_private_key: Path of its private key in PEM, not encrypted.
        tls_client_ca: Path of the CA certificates in PEM that sign clients' certificates. If it is set, every client
            must present a certificate, and handlers get its identities from ``peer_identities()`` of the gRPC context.
        tls_client_certificate: ``"optional"`` accepts clients without a certificate, too, for example those that send a
            token. A certificate that ``tls_client_ca`` has not signed is refused in any case.
        access_log: Path of the access log, on every node with a proxy; None for no log. It has one line per call, with
            those too that no replica has answered. Envoy appends to it and does not rotate it: truncate it in place
            (logrotate's ``copytruncate``). ``"stdout"`` is the output of the proxy's actor, which Ray handles as that
            of other actors. ``"otlp"`` is the collector of logs that OpenTelemetry's variables name, in the environment
            of each node with a proxy (``OTEL_EXPORTER_OTLP_ENDPOINT``).
        access_log_format: Format of a file. ``"json"``: one object a line, without fields that the call does not have.
            ``"text"``: the time, then ``name="value"`` for each field.
        access_log_failed_only: Log only calls with another status than OK; with ``access_log_slow_s``, slow ones too.
        access_log_slow_s: Log only calls that last at least these seconds; with ``access_log_failed_only``, failed ones
            too. None for calls of any duration.
        access: Who may call what: tokens, API keys, certificates, rules and limits (:mod:`sdk.access`); None for
            everyone everything.
        cors_origins: Origins of web pages that may call, ``"https://app.example.com"``; ``"*"`` for every page. Empty
            for none but pages of this origin. https://developer.mozilla.org/docs/Web/HTTP/Guides/CORS
        cors_headers: Names of headers that these pages may send and read, in addition to those of gRPC-Web and Connect.
        cors_credentials: Let these pages send cookies and client certificates; not with ``"*"``.
        console: Serve a page at ``/console`` where people browse and call the services; None to serve it only if
            ``host`` is a loopback address.
        docs: Serve a page with the documentation of the services at ``/docs``, from ``/openapi.json``.

    Raises:
        OptionsError: A value is invalid. Lists every invalid value.

    Example:
        >>> GrpcOptions(port=9000).port
        9000
        >>> GrpcOptions(port=0)
        Traceback (most recent call last):
        ...
        sdk.errors.OptionsError: GrpcOptions: port must be a whole number from 1 to 65535, not 0
    """

    host: str = "127.0.0.1"
    port: int = 9000
    proxy_location: Literal["EveryNode", "HeadOnly"] = "EveryNode"
    request_timeout_s: float | None = None
    route_by_service: bool = False
    error_details: Literal["traceback", "message", "none"] = "traceback"
    max_receive_message_length: int = 64 << 20
    max_metadata_bytes: int = 60 << 10
    max_concurrent_streams: int = 1 << 20
    grpc_servicer_functions: tuple[str, ...] | None = None
    keepalive_time_s: float | None = 60.0
    keepalive_timeout_s: float = 20.0
    max_connection_idle_s: float | None = 3600.0
    max_connection_age_s: float | None = None
    envoy_concurrency: int | None = None
    max_envoy_memory_bytes: int | None = None
    tls_certificate: str | None = None
    tls_private_key: str | None = None
    tls_client_ca: str | None = None
    tls_client_certificate: Literal["required", "optional"] = "required"
    access_log: str | None = None
    access_log_format: Literal["json", "text"] = "json"
    access_log_failed_only: bool = False
    access_log_slow_s: float | None = None
    access: Access | None = None
    cors_origins: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ()
    cors_credentials: bool = False
    console: bool | None = None
    docs: bool = True

    def __post_init__(self) -> None:
        problems = []
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            problems.append(f"host must be an IP address such as '127.0.0.1' or '0.0.0.0', not {self.host!r}")
        if not _is_whole(self.port) or not 1 <= self.port <= 65535:
            problems.append(f"port must be a whole number from 1 to 65535, not {self.port!r}")
        if self.proxy_location not in _PROXY_LOCATIONS:
            problems.append(f"proxy_location must be one of {', '.join(_PROXY_LOCATIONS)}, not {self.proxy_location!r}")
        problems += self._invalid_seconds()
        if self.error_details not in _ERROR_DETAILS:
            problems.append(f"error_details must be one of {', '.join(_ERROR_DETAILS)}, not {self.error_details!r}")
        if self.access_log_format not in _LOG_FORMATS:
            formats = ", ".join(_LOG_FORMATS)
            problems.append(f"access_log_format must be one of {formats}, not {self.access_log_format!r}")
        for name, low, high in (
            ("max_receive_message_length", 1, (1 << 32) - 1),
            ("max_metadata_bytes", 1 << 10, 96 << 10),
            ("max_concurrent_streams", 1, (1 << 31) - 1),
        ):
            value = getattr(self, name)
            if not _is_whole(value) or not low <= value <= high:
                problems.append(f"{name} must be a whole number from {low} to {high}, not {value!r}")
        concurrency = self.envoy_concurrency
        if concurrency is not None and (not _is_whole(concurrency) or concurrency < 1):
            problems.append(f"envoy_concurrency must be a whole number from 1 or None, not {concurrency!r}")
        memory = self.max_envoy_memory_bytes
        if memory is not None and (not _is_whole(memory) or memory < _MIN_MEMORY):
            problems.append(f"max_envoy_memory_bytes must be bytes from {_MIN_MEMORY} or None, not {memory!r}")
        if self.tls_client_certificate not in _CLIENT_CERTIFICATE:
            known = ", ".join(_CLIENT_CERTIFICATE)
            problems.append(f"tls_client_certificate must be one of {known}, not {self.tls_client_certificate!r}")
        problems += self._invalid_services()
        problems += self._invalid_paths()
        problems += self._invalid_access()
        problems += self._invalid_cors()
        problems += self._invalid_pages()
        if problems:
            raise OptionsError("GrpcOptions: " + "; ".join(problems))

    def _invalid_seconds(self) -> Iterator[str]:
        for name, least, optional in (
            ("request_timeout_s", 0.0, True),
            # Shorter intervals have no benefit, and clients may take frequent PINGs for an attack.
            ("keepalive_time_s", 1.0, True),
            ("keepalive_timeout_s", 1.0, False),
            ("max_connection_idle_s", 1.0, True),
            ("max_connection_age_s", 1.0, True),
            ("access_log_slow_s", 0.001, True),
        ):
            value = getattr(self, name)
            if value is None and optional:
                continue
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
            if not is_number or not least <= value <= _MAX_S:
                what = f"a number of seconds from {least:g}" if least else "a positive number of seconds"
                yield f"{name} must be {what}{' or None' if optional else ''}, not {value!r}"

    def _invalid_services(self) -> Iterator[str]:
        names = self.grpc_servicer_functions
        if names is None:
            return
        if isinstance(names, list):  # from a config file
            object.__setattr__(self, "grpc_servicer_functions", tuple(names))
        elif not isinstance(names, tuple):
            yield f"grpc_servicer_functions must be a tuple of import paths or None, not {names!r}"
            return
        if not names:
            yield "grpc_servicer_functions must name a service, or be None for all services"
        for name in names:
            if not isinstance(name, str) or not all(part.isidentifier() for part in re.split(r"[.:]", name)):
                yield f"grpc_servicer_functions must hold import paths or full names of services, not {name!r}"

    def _invalid_paths(self) -> Iterator[str]:
        for name in ("tls_certificate", "tls_private_key", "tls_client_ca", "access_log"):
            path = getattr(self, name)
            if name == "access_log" and path in ACCESS_LOG_TARGETS:
                continue
            # A relative path has no meaning: proxies run on other nodes, in folders of Ray.
            if path is not None and (not isinstance(path, str) or not os.path.isabs(path)):
                other = "".join(f", {each!r}" for each in ACCESS_LOG_TARGETS) if name == "access_log" else ""
                yield f"{name} must be an absolute path{other} or None, not {path!r}"
        if self.access_log is None and (self.access_log_failed_only or self.access_log_slow_s is not None):
            yield "access_log_failed_only and access_log_slow_s choose the lines of access_log, which is not set"
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            yield "tls_certificate and tls_private_key must be given together"
        elif self.tls_client_ca is not None and self.tls_certificate is None:
            yield "tls_client_ca must come with tls_certificate and tls_private_key"

    def _invalid_access(self) -> Iterator[str]:
        if isinstance(self.access, Mapping):  # from a config file
            try:
                object.__setattr__(self, "access", access_from(self.access))
            except OptionsError as error:
                yield str(error).replace("Access: ", "access: ", 1)
        elif self.access is not None and not isinstance(self.access, Access):
            yield f"access must be an sdk.access.Access or None, not {self.access!r}"

    @property
    def identifies_clients(self) -> bool:
        """True if the ingress verifies certificates, tokens or API keys of clients."""
        access = self.access
        has_credentials = access is not None and bool(access.issuers or access.api_keys)
        return has_credentials or self.tls_client_ca is not None

    def _invalid_cors(self) -> Iterator[str]:
        for name, pattern, example in (
            ("cors_origins", _ORIGIN, "origins such as 'https://app.example.com'"),
            ("cors_headers", _HEADER, "names of headers such as 'x-mine'"),
        ):
            values = getattr(self, name)
            if isinstance(values, list):  # from a config file
                values = tuple(values)
                object.__setattr__(self, name, values)
            if not isinstance(values, tuple):
                yield f"{name} must be a tuple of {example}, not {values!r}"
                continue
            for value in values:
                if not isinstance(value, str) or not pattern.fullmatch(value):
                    yield f"{name} must hold {example}, not {value!r}"
        if self.cors_credentials and "*" in self.cors_origins:
            yield "cors_credentials must not come with cors_origins '*': name the origins"

    def _invalid_pages(self) -> Iterator[str]:
        if self.console is not None and not isinstance(self.console, bool):
            yield f"console must be True, False or None, not {self.console!r}"
        if not isinstance(self.docs, bool):
            yield f"docs must be True or False, not {self.docs!r}"

    @property
    def pages(self) -> tuple[str, ...]:
        """Paths of the pages that the ingress serves."""
        has_console = ipaddress.ip_address(self.host).is_loopback if self.console is None else self.console
        return (*([CONSOLE_PATH] if has_console else []), *([DOCS_PATH] if self.docs else []))

    def with_live_options_of(self, other: GrpcOptions) -> GrpcOptions:
        """Return these options with the live options of another set.

        Args:
            other: Options whose live values to take.

        Example:
            >>> changed = GrpcOptions(port=9000).with_live_options_of(GrpcOptions(port=9001, route_by_service=True))
            >>> changed.port, changed.route_by_service
            (9000, True)
        """
        return replace(self, **{name: getattr(other, name) for name in LIVE_OPTIONS})

    def fixed_differences(self, other: GrpcOptions) -> tuple[str, ...]:
        """Return the names of the options that differ from another set and can't change while the ingress runs."""
        return tuple(
            field.name
            for field in fields(self)
            if field.name not in LIVE_OPTIONS and getattr(self, field.name) != getattr(other, field.name)
        )

    def differences(self, other: GrpcOptions) -> str:
        """Return the differences to another set as text, ``"port 9000 → 9001"``; empty if the sets are equal."""
        return ", ".join(
            f"{field.name} {getattr(self, field.name)!r} → {getattr(other, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
