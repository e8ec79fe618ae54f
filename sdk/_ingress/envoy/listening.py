"""Listeners of a proxy: the port of its Envoy, and the unix sockets of the proxy's servers behind Envoy."""

from __future__ import annotations

import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from sdk._guard.between_nodes import own_between_nodes
from sdk._guard.private_socket import private_socket
from sdk._otel import current
from sdk._otel.otlp import Collector, log_collector
from sdk._xds.access_log import AccessLogConfig
from sdk._xds.listener import ListenerConfig
from sdk._xds.tls import TlsConfig, write_node_secrets, write_secrets
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

#: Name of the service in the spans and logs of the ingress, unless ``OTEL_SERVICE_NAME`` names it.
SERVICE_NAME = "grpc-ingress"
FALLBACK_SOCKET, GATE_SOCKET, STDOUT_LINK = "fallback.sock", "gate.sock", "stdout"
# Folder of Envoy's SDS files, in that of the proxy.
_SECRETS = "secrets"
# A burst of calls must be held. By default grpcio cancels pending calls above 1,000.
_OPTIONS = [
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 2_000_000),
]
# Options with the same name in GrpcOptions and ListenerConfig.
_SHARED_NAMES = {field.name for field in fields(ListenerConfig)} - {
    "fallback_socket",
    "gate_socket",
    "access_log",
    "guard",
    "node_secrets",
    "logged_headers",
    "tls",
}


def format_address(host: str, port: int) -> str:
    """Return an address as ``host:port``, with brackets around an IPv6 host.

    Example:
        >>> format_address("127.0.0.1", 9000), format_address("::1", 9000)
        ('127.0.0.1:9000', '[::1]:9000')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listener_config(options: GrpcOptions, folder: Path, *, has_gate: bool) -> ListenerConfig:
    """Return the configuration of Envoy's listener.

    Args:
        options: Options of the ingress.
        folder: The folder of the proxy.
        has_gate: Whether the proxy has a gate, where calls wait for the first replica of a deployment.
    """
    guard = own_between_nodes()
    return ListenerConfig(
        fallback_socket=str(folder / FALLBACK_SOCKET),
        gate_socket=str(folder / GATE_SOCKET) if has_gate else "",
        tls=tls_config(options, folder),
        access_log=access_log_config(options, folder),
        guard=guard,
        node_secrets=str(folder / _SECRETS) if guard.mode == "tls" else "",
        logged_headers=tuple(sorted(current.tracing.metadata_keys)) if current.tracing is not None else (),
        **{name: getattr(options, name) for name in _SHARED_NAMES},
    )


def tls_config(options: GrpcOptions, folder: Path) -> TlsConfig | None:
    """Return the paths of Envoy's certificates; None for plain text."""
    if options.tls_certificate is None or options.tls_private_key is None:
        return None
    return TlsConfig(
        options.tls_certificate,
        options.tls_private_key,
        str(folder / _SECRETS),
        client_ca=options.tls_client_ca,
        requires_client_certificate=options.tls_client_certificate == "required",
    )


def write_secret_files(config: ListenerConfig) -> None:
    """Write the files that name the certificates of a listener and of connections to other nodes.

    Args:
        config: Configuration of the listener.

    Raises:
        OSError: The folder can't be written to.
    """
    if config.tls is not None:
        write_secrets(config.tls)
    if config.node_secrets:
        write_node_secrets(config.guard, config.node_secrets)


def access_log_config(options: GrpcOptions, folder: Path) -> AccessLogConfig | None:
    """Return the access log; None for none."""
    if options.access_log is None:
        return None
    target: str | Collector = options.access_log
    if target == "stdout":
        target = str(folder / STDOUT_LINK)
    elif target == "otlp":
        try:
            target = log_collector(os.environ)
        except OptionsError as error:  # calls are served without it, as they are without spans
            logger.error("there is no access log: %s", error)
            return None
    return AccessLogConfig(
        target,
        format=options.access_log_format,
        service=os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME,
        failed_only=options.access_log_failed_only,
        slow_s=options.access_log_slow_s,
    )


def link_stdout(folder: Path) -> None:
    """Make the link by which Envoy, whose own output is elsewhere, writes to the output of this process.

    Ray takes that for the output of an actor: it is in Ray's logs and at the driver, and in the output of the node
    (in a pod, of its container) with ``RAY_LOG_TO_STDERR=1``.

    Args:
        folder: The folder of the proxy.
    """
    link = folder / STDOUT_LINK
    link.unlink(missing_ok=True)  # that of an earlier process
    link.symlink_to(f"/proc/{os.getpid()}/fd/1")


def gate_server(handler: grpc.GenericRpcHandler, folder: Path) -> grpc.aio.Server:
    """Return the gRPC server of the gate. It listens once it is started.

    Only Envoy itself calls it, over HTTP/2: what a client sent is inside its messages, and no client shares its
    headers with another one. Each call that waits is a stream, not a connection.

    Args:
        handler: Handler of every call.
        folder: The folder of the proxy.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    with private_socket(str(folder / GATE_SOCKET)) as path:
        server.add_insecure_port(f"unix:{path}")
    return server
