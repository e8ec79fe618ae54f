"""The listener: the port that clients call, its HTTP connection manager, and Envoy's local replies."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._guard.between_nodes import UNGUARDED, BetweenNodes
from sdk._xds.access_filters import access_filters, strip_identity
from sdk._xds.access_log import AccessLogConfig, access_log, own_answers_log
from sdk._xds.cors import cors_filters
from sdk._xds.ext_authz import gate_filter
from sdk._xds.local_replies import local_replies
from sdk._xds.lua_filter import last_value_filter, path_filter
from sdk._xds.packing import pack
from sdk._xds.tls import TlsConfig, transport_socket
from sdk.errors import OptionsError

LISTENER_NAME = "grpc"
ROUTE_CONFIG_NAME = "routes"
#: Maximum number of headers in a request and trailers in a response. gRPC limits bytes only; Envoy's default is 100.
MAX_HEADERS = 1100
#: Maximum size of a request's headers, in KiB: the most that Envoy takes as the size of one header. Envoy resets the
#: stream if all headers together are longer, and closes the connection with all its calls if one header is. Replicas
#: and the proxy refuse a call with more metadata than the options allow, which is less, with a status.
MAX_HEADERS_KIB = 256
APPLICATION_KEY = "application"
#: Seconds between the first and the second GOAWAY of a connection: enough for a client to read the first one.
# https://www.rfc-editor.org/rfc/rfc9113#section-6.8
DRAIN_NOTICE_S = 1
# HTTP/2 flow control: bytes of requests that Envoy buffers for handlers that do not read. By default a connection has
# room for one and a half such streams, and then every call on it stalls. With these windows it has room for 128
# streams, more than most clients use at a time.
_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 128 << 20
# Frames that may wait for a client that reads slowly. Envoy closes the connection, with all its calls, when more do: at
# the default of 10,000, some 4,000 responses at one moment were enough, which a client with many calls causes honestly.
# https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/protocol.proto#config-core-v3-http2protocoloptions
_MAX_OUTBOUND_FRAMES = 1 << 18


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """Configuration of one proxy's listener.

    Attributes:
        fallback_socket: Path of the unix socket of the proxy's wire server. It answers every call without a route:
            built-in services, NOT_FOUND, UNIMPLEMENTED.
        host: IP address to listen on; ``"::"`` listens on IPv4 too.
        port: TCP port.
        max_concurrent_streams: Maximum number of concurrent calls on one client connection.
        tls: Certificates; None for plain text.
        access_log: The access log; None for none.
        keepalive_time_s: Seconds between two PINGs to a client; None for no PINGs.
        keepalive_timeout_s: Seconds that a client has to answer a PING before its connection is closed.
        max_connection_idle_s: Seconds without a call after which a connection is closed; None for no limit.
        max_connection_age_s: Seconds after which a client gets a GOAWAY and connects again; None for no limit.
        gate_socket: Path of the unix socket of the proxy's ext_authz server, where calls wait for a replica. If empty,
            calls to a deployment without replicas end UNAVAILABLE.
        guard: How connections to replicas on other nodes are guarded.
        node_secrets: Path of the folder with the SDS files for connections to other nodes; empty without TLS.
        logged_headers: Request headers that the control plane gets of each call that Envoy answers itself; if empty, it
            gets nothing.
        cors_origins: Origins of pages that may call; none for no CORS.
        cors_headers: Headers that these pages may send and read, in addition to those of the protocols.
        cors_credentials: Whether these pages may send cookies and other credentials of their browser.
        pages: Paths of the pages that the proxy serves.

    Raises:
        OptionsError: Envoy would reject a value.
    """

    fallback_socket: str
    host: str = "0.0.0.0"
    port: int = 9000
    max_concurrent_streams: int = 1_000_000
    tls: TlsConfig | None = None
    access_log: AccessLogConfig | None = None
    keepalive_time_s: float | None = None
    keepalive_timeout_s: float = 20.0
    max_connection_idle_s: float | None = None
    max_connection_age_s: float | None = None
    gate_socket: str = ""
    guard: BetweenNodes = UNGUARDED
    node_secrets: str = ""
    logged_headers: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ()
    cors_credentials: bool = False
    pages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            ip_address(self.host)
        except ValueError:
            raise OptionsError(f"host must be an IP address, got {self.host!r}") from None
        for name, low, high in (
            ("port", 1, 65535),
            ("max_concurrent_streams", 1, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise OptionsError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")


def ads_source() -> pb.ConfigSource:
    """Return the config source for resources on the ADS stream, without a fetch timeout.

    By default Envoy gives up after 15 s and serves without the resource, which would answer UNIMPLEMENTED for every
    application.
    """
    return pb.ConfigSource(
        ads=pb.AggregatedConfigSource(), initial_fetch_timeout=Duration(), resource_api_version=pb.V3
    )


def build_listener(config: ListenerConfig) -> pb.Listener:
    """Return the listener. It gets its routes over RDS."""
    connections = pb.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=pack(_connection_manager(config))
    )
    return pb.Listener(
        name=LISTENER_NAME,
        address=socket_address(config.host, config.port),
        filter_chains=[
            pb.FilterChain(
                filters=[connections], transport_socket=transport_socket(config.tls) if config.tls is not None else None
            )
        ],
        # With reuse_port, Envoy's default, a second server on this port (such as any grpcio server) would silently get
        # a part of the calls. Without it Envoy rejects the listener if the port is in use. exact_balance then
        # distributes connections evenly over Envoy's worker threads, which a few long-lived gRPC connections need
        # anyway.
        enable_reuse_port=BoolValue(value=False),
        connection_balance_config=pb.Listener.ConnectionBalanceConfig(
            exact_balance=pb.Listener.ConnectionBalanceConfig.ExactBalance()
        ),
    )


def socket_address(host: str, port: int) -> pb.Address:
    """Return a TCP address; ``"::"`` accepts IPv4 connections too."""
    return pb.Address(socket_address=pb.SocketAddress(address=host, port_value=port, ipv4_compat=host == "::"))


def _connection_manager(config: ListenerConfig) -> pb.HttpConnectionManager:
    return pb.HttpConnectionManager(
        codec_type=pb.HttpConnectionManager.AUTO,
        stat_prefix="grpc",
        rds=pb.Rds(config_source=ads_source(), route_config_name=ROUTE_CONFIG_NAME),
        http_filters=[
            *(cors_filters() if config.cors_origins else []),
            last_value_filter(APPLICATION_KEY),
            path_filter(APPLICATION_KEY),
            *access_filters(ads_source()),
            *([gate_filter()] if config.gate_socket else []),
            pb.HttpFilter(
                name="envoy.filters.http.router",
                # Envoy's x-envoy-* headers would reach clients as metadata. Dynamic statistics count each cluster's
                # HTTP status codes, which gRPC does not use, for 4 % of Envoy's instructions a call.
                typed_config=pack(pb.Router(suppress_envoy_headers=True, dynamic_stats=BoolValue(value=False))),
            ),
        ],
        # Don't trust headers in which a client describes itself: Envoy overwrites x-forwarded-proto,
        # x-forwarded-client-cert and x-request-id, and ignores x-envoy-* headers. By default it trusts clients on
        # private addresses; here it trusts only an address that no client has. (x-forwarded-for: routes.py.)
        # https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
        use_remote_address=BoolValue(value=True),
        skip_xff_append=True,
        internal_address_config=pb.HttpConnectionManager.InternalAddressConfig(
            cidr_ranges=[pb.CidrRange(address_prefix="255.255.255.255", prefix_len=UInt32Value(value=32))]
        ),
        early_header_mutation_extensions=[strip_identity()],
        forward_client_cert_details=pb.HttpConnectionManager.SANITIZE_SET,
        set_current_client_cert_details=pb.HttpConnectionManager.SetCurrentClientCertDetails(cert=True),
        # x-request-id is the request id of a call without `request_id` metadata.
        generate_request_id=BoolValue(value=True),
        # Zero disables it; by default Envoy resets a stream that is idle for five minutes.
        stream_idle_timeout=Duration(),
        server_header_transformation=pb.HttpConnectionManager.PASS_THROUGH,
        max_request_headers_kb=UInt32Value(value=MAX_HEADERS_KIB),
        common_http_protocol_options=pb.CoreHttpProtocolOptions(
            max_headers_count=UInt32Value(value=MAX_HEADERS),
            idle_timeout=_seconds(config.max_connection_idle_s or 0),  # zero disables it; the default is an hour
            max_connection_duration=_seconds(config.max_connection_age_s) if config.max_connection_age_s else None,
        ),
        # Seconds between the first and the second GOAWAY: new calls on the connection are still accepted in between.
        # Calls that are still running continue without a limit.
        drain_timeout=Duration(seconds=DRAIN_NOTICE_S),
        http_protocol_options=pb.Http1ProtocolOptions(enable_trailers=True),
        http2_protocol_options=pb.Http2ProtocolOptions(
            max_concurrent_streams=UInt32Value(value=config.max_concurrent_streams),
            initial_stream_window_size=UInt32Value(value=_STREAM_WINDOW),
            initial_connection_window_size=UInt32Value(value=_CONNECTION_WINDOW),
            max_outbound_frames=UInt32Value(value=_MAX_OUTBOUND_FRAMES),
            # A malformed request resets its stream only, not the whole connection.
            override_stream_error_on_invalid_http_message=BoolValue(value=True),
            max_header_field_size_kb=UInt32Value(value=MAX_HEADERS_KIB),
            connection_keepalive=_keepalive(config),
        ),
        local_reply_config=local_replies(),
        access_log=[
            *([access_log(config.access_log)] if config.access_log is not None else []),
            *([own_answers_log(config.logged_headers)] if config.logged_headers else []),
        ],
    )


def _keepalive(config: ListenerConfig) -> pb.KeepaliveSettings | None:
    if config.keepalive_time_s is None:
        return None
    return pb.KeepaliveSettings(
        interval=_seconds(config.keepalive_time_s), timeout=_seconds(config.keepalive_timeout_s)
    )


def _seconds(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration
