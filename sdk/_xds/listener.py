"""The listener: the port that clients call, and what Envoy itself answers there."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from sdk._gen import envoy_pb2 as pb
from sdk._xds.access_log import access_log
from sdk._xds.ext_authz import gate_filter
from sdk._xds.lua_filter import last_value_filter
from sdk._xds.packing import pack
from sdk._xds.tls import TlsConfig, transport_socket
from sdk.errors import OptionsError

LISTENER_NAME = "grpc"
ROUTE_CONFIG_NAME = "routes"
#: Headers in a request, and trailers in an answer. gRPC counts bytes only; Envoy's default is 100.
MAX_HEADERS = 1100
APPLICATION_KEY = "application"
#: Seconds in which a client has surely read that its connection ends (HTTP/2's GOAWAY).
DRAIN_NOTICE_S = 1
_RESOURCE_EXHAUSTED = "8"
# Bytes of requests that Envoy holds for handlers that do not read. By default a connection has room for one and a half
# such streams, and then every call on it stands still; with these for 128, more than most clients have at a time.
_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 128 << 20


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """What one proxy's Envoy listens on.

    Attributes:
        fallback_socket: Path of the unix socket where the proxy answers, as a gRPC server over HTTP/2, every call that
            has no route: its built-in services, NOT_FOUND, UNIMPLEMENTED.
        host: IP address to listen on; ``"::"`` listens on IPv4 too.
        port: TCP port.
        max_concurrent_streams: Calls at a time on one client connection.
        max_metadata_bytes: Most bytes of metadata in a request. Replicas refuse more, with a status and a reason; Envoy
            can only reset it, and does so from twice as much on.
        tls: Certificates; None for plain text.
        access_log: Absolute path of the file that gets a line for each call; None for no log.
        keepalive_time_s: Seconds between two pings to a client; None for none.
        keepalive_timeout_s: Seconds that a client has to answer one before its connection is closed.
        max_connection_idle_s: Seconds without a call after which a connection is closed; None for never.
        max_connection_age_s: Seconds after which a client is told to connect anew; None for never.
        gate_socket: Path of the unix socket where the proxy lets calls wait for a replica; empty when it can't, and
            calls to a deployment that is scaled to zero end UNAVAILABLE.

    Raises:
        OptionsError: A value that Envoy would refuse.
    """

    fallback_socket: str
    host: str = "0.0.0.0"
    port: int = 9000
    max_concurrent_streams: int = 1_000_000
    max_metadata_bytes: int = 64 * 1024
    tls: TlsConfig | None = None
    access_log: str | None = None
    keepalive_time_s: float | None = None
    keepalive_timeout_s: float = 20.0
    max_connection_idle_s: float | None = None
    max_connection_age_s: float | None = None
    gate_socket: str = ""

    def __post_init__(self) -> None:
        try:
            ip_address(self.host)
        except ValueError:
            raise OptionsError(f"host must be an IP address, got {self.host!r}") from None
        for name, low, high in (
            ("port", 1, 65535),
            ("max_concurrent_streams", 1, 2**31 - 1),
            ("max_metadata_bytes", 1, 4096 * 1024),
        ):
            if not low <= getattr(self, name) <= high:
                raise OptionsError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")

    @property
    def max_headers_kib(self) -> UInt32Value:
        """Where Envoy resets a request, in its unit."""
        return UInt32Value(value=-(-2 * self.max_metadata_bytes // 1024))


def ads_source() -> pb.ConfigSource:
    """Where Envoy gets a resource: the ADS stream, and it waits for it as long as it takes.

    By default it gives up after 15 s and serves without, which would answer UNIMPLEMENTED for every application.
    """
    return pb.ConfigSource(
        ads=pb.AggregatedConfigSource(), initial_fetch_timeout=Duration(), resource_api_version=pb.V3
    )


def build_listener(config: ListenerConfig) -> pb.Listener:
    """Returns the one listener, which takes its routes from ADS."""
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
        # With reuse_port, Envoy's default, a second server on this port (any grpcio server, for one) would silently
        # take a part of the calls. Without it Envoy refuses the listener when the port is taken. Connections are
        # then dealt evenly to Envoy's threads, which a few long-lived gRPC connections need anyhow.
        enable_reuse_port=BoolValue(value=False),
        connection_balance_config=pb.Listener.ConnectionBalanceConfig(
            exact_balance=pb.Listener.ConnectionBalanceConfig.ExactBalance()
        ),
    )


def socket_address(host: str, port: int) -> pb.Address:
    """Returns a TCP address; ``"::"`` takes IPv4 connections too."""
    return pb.Address(socket_address=pb.SocketAddress(address=host, port_value=port, ipv4_compat=host == "::"))


def _connection_manager(config: ListenerConfig) -> pb.HttpConnectionManager:
    return pb.HttpConnectionManager(
        codec_type=pb.HttpConnectionManager.AUTO,
        stat_prefix="grpc",
        rds=pb.Rds(config_source=ads_source(), route_config_name=ROUTE_CONFIG_NAME),
        http_filters=[
            last_value_filter(APPLICATION_KEY),
            *([gate_filter()] if config.gate_socket else []),
            pb.HttpFilter(
                name="envoy.filters.http.router",
                # Envoy's x-envoy-* headers would reach clients as metadata. Dynamic statistics count each cluster's
                # HTTP status codes, which gRPC does not use, for 4 % of Envoy's instructions a call.
                typed_config=pack(pb.Router(suppress_envoy_headers=True, dynamic_stats=BoolValue(value=False))),
            ),
        ],
        # What a client says about itself in headers is not believed: Envoy writes x-forwarded-proto,
        # x-forwarded-client-cert and x-request-id anew, and heeds no x-envoy-* header. By default it trusts clients on
        # private addresses; here it trusts those on an address that no client has. (x-forwarded-for: routes.py.)
        use_remote_address=BoolValue(value=True),
        skip_xff_append=True,
        internal_address_config=pb.HttpConnectionManager.InternalAddressConfig(
            cidr_ranges=[pb.CidrRange(address_prefix="255.255.255.255", prefix_len=UInt32Value(value=32))]
        ),
        forward_client_cert_details=pb.HttpConnectionManager.SANITIZE_SET,
        set_current_client_cert_details=pb.HttpConnectionManager.SetCurrentClientCertDetails(cert=True),
        # x-request-id is the request id of a call whose client gave no `request_id`.
        generate_request_id=BoolValue(value=True),
        # Zero is "never": the default cuts a stream that is quiet for five minutes.
        stream_idle_timeout=Duration(),
        server_header_transformation=pb.HttpConnectionManager.PASS_THROUGH,
        max_request_headers_kb=config.max_headers_kib,
        common_http_protocol_options=pb.CoreHttpProtocolOptions(
            max_headers_count=UInt32Value(value=MAX_HEADERS),
            idle_timeout=_seconds(config.max_connection_idle_s or 0),  # zero is "never"; the default is an hour
            max_connection_duration=_seconds(config.max_connection_age_s) if config.max_connection_age_s else None,
        ),
        # Between the announcement that a connection ends and its end new calls on it are still taken; those that run
        # then go on for as long as they like.
        drain_timeout=Duration(seconds=DRAIN_NOTICE_S),
        http_protocol_options=pb.Http1ProtocolOptions(enable_trailers=True),
        http2_protocol_options=pb.Http2ProtocolOptions(
            max_concurrent_streams=UInt32Value(value=config.max_concurrent_streams),
            initial_stream_window_size=UInt32Value(value=_STREAM_WINDOW),
            initial_connection_window_size=UInt32Value(value=_CONNECTION_WINDOW),
            # One malformed request ends its own stream and not every call on the connection.
            override_stream_error_on_invalid_http_message=BoolValue(value=True),
            connection_keepalive=_keepalive(config),
        ),
        local_reply_config=_local_replies(),
        access_log=[access_log(config.access_log)] if config.access_log is not None else [],
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


def _local_replies() -> pb.LocalReplyConfig:
    """What Envoy answers itself: every one carries `request_id`; two get the words and status they need.

    The first mapper that matches is the only one used, so each adds `request_id`. Envoy's answers are trailers-only:
    their headers are trailing metadata to a gRPC client. A route's name is its application's.
    """
    overflow = pb.AccessLogFilter(response_flag_filter=pb.ResponseFlagFilter(flags=["UO"]))
    no_host = pb.AccessLogFilter(response_flag_filter=pb.ResponseFlagFilter(flags=["UH"]))
    always = pb.AccessLogFilter(not_health_check_filter=pb.NotHealthCheckFilter())
    request_id = set_header("request_id", "%REQ(request_id?x-request-id)%")
    return pb.LocalReplyConfig(
        mappers=[
            pb.ResponseMapper(
                filter=overflow,
                headers_to_add=[request_id, set_header("grpc-status", _RESOURCE_EXHAUSTED)],
                body_format_override=_text(
                    "Request dropped due to backpressure: the proxy holds as many requests for application "
                    "'%ROUTE_NAME%' as it may."
                ),
            ),
            pb.ResponseMapper(
                filter=no_host,
                headers_to_add=[request_id],
                body_format_override=_text("No replica of application '%ROUTE_NAME%' is ready."),
            ),
            pb.ResponseMapper(filter=always, headers_to_add=[request_id]),
        ]
    )


def set_header(name: str, value: str) -> pb.HeaderValueOption:
    """Returns a header that replaces what there is under its name."""
    return pb.HeaderValueOption(
        header=pb.HeaderValue(key=name, value=value),
        append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _text(text: str) -> pb.SubstitutionFormatString:
    return pb.SubstitutionFormatString(text_format_source=pb.DataSource(inline_string=text))
