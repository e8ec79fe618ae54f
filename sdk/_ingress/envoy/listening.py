"""What a proxy listens on: the port of its Envoy, and the unix sockets behind Envoy where it answers itself."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from sdk._xds.listener import ListenerConfig
from sdk._xds.tls import TlsConfig

if TYPE_CHECKING:
    from sdk.options import GrpcOptions

FALLBACK, HOLD = "fallback.sock", "hold.sock"
# A burst of calls without a route must be answered, not cancelled (grpcio cancels above 1,000 by default), whatever
# metadata they have that Envoy lets through (grpcio refuses them from 8 KiB on).
_OPTIONS = [
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 2_000_000),
    ("grpc.max_metadata_size", 256 << 10),
    ("grpc.absolute_max_metadata_size", 256 << 10),
]
# Options of the ingress that are Envoy's under the same name.
_SAME = {field.name for field in fields(ListenerConfig)} - {"fallback_socket", "hold_socket", "tls"}


def address_text(host: str, port: int) -> str:
    """Return an address as clients write it.

    Example:
        >>> address_text("127.0.0.1", 9000), address_text("::1", 9000)
        ('127.0.0.1:9000', '[::1]:9000')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listener_config(options: GrpcOptions, folder: Path, *, can_hold: bool) -> ListenerConfig:
    """Return what Envoy listens on.

    Args:
        options: Options of the ingress.
        folder: The folder of the proxy.
        can_hold: Whether calls may wait there for the first replica of a deployment.
    """
    return ListenerConfig(
        fallback_socket=str(folder / FALLBACK),
        hold_socket=str(folder / HOLD) if can_hold else "",
        tls=tls_config(options, folder),
        **{name: getattr(options, name) for name in _SAME},
    )


def tls_config(options: GrpcOptions, folder: Path) -> TlsConfig | None:
    """Return where Envoy finds its certificates; None for plain text."""
    if options.tls_certificate is None or options.tls_private_key is None:
        return None
    return TlsConfig(
        options.tls_certificate, options.tls_private_key, str(folder / "secrets"), client_ca=options.tls_client_ca
    )


def unix_server(handler: grpc.GenericRpcHandler, path: Path) -> grpc.aio.Server:
    """Return a gRPC server behind Envoy; it listens when it is started.

    Args:
        handler: What answers every call.
        path: Path of its socket.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{path}")
    return server
