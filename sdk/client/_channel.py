"""Channels of generated clients: target, credentials, retries, keepalive and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import grpc

if TYPE_CHECKING:
    from sdk.service import Method

#: Longest message, in bytes, that a client accepts, and the ingress by default.
DEFAULT_MAX_MESSAGE_LENGTH = 64 << 20

Token = str | Callable[[], str]

# Targets on this machine, which no proxy reaches.
_LOOPBACK = re.compile(r"(?:[a-z0-9]+:(?://[^/]*/)?)?(?:localhost|127(?:\.\d+){3}|\[::1\]|::1)(?::\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry policy of a client: the calls to retry, and the delays.

    It follows gRFC A6 (https://github.com/grpc/proposal/blob/master/A6-client-retries.md): a call is retried only while
    the client has received no part of its response, and only for the given status codes. The default is UNAVAILABLE,
    the one code that reports a failure between client and handler. It does not say whether the handler ran: either no
    replica was ready, or the replica with the call died during it. So by default only methods are retried that the
    proto declares safe to retry (``option idempotency_level = NO_SIDE_EFFECTS`` or ``IDEMPOTENT``). Independently of
    this policy, gRPC retries a call that did not leave the client or that the server certainly did not process
    (transparent retries), and Envoy retries a call that no replica accepted.

    Attributes:
        attempts: Most attempts of a call, from 2 to 5, including the first one.
        first_backoff_s: Seconds before the second attempt, with a random jitter of up to 20 %.
        max_backoff_s: Most seconds between two attempts.
        backoff_multiplier: Factor by which each delay is longer than the one before.
        codes: Status codes for which a call is retried.
        methods: ``"idempotent"`` for the methods that the proto marks, ``"all"`` for every method.

    Raises:
        ValueError: gRPC would refuse a value; the message lists every invalid one.

    Example:
        >>> RetryPolicy(attempts=3, methods="all").attempts
        3
    """

    attempts: int = 4
    first_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    backoff_multiplier: float = 2.0
    codes: tuple[grpc.StatusCode, ...] = (grpc.StatusCode.UNAVAILABLE,)
    methods: Literal["idempotent", "all"] = "idempotent"

    def __post_init__(self) -> None:
        wrong = []
        if not isinstance(self.attempts, int) or not 2 <= self.attempts <= 5:
            wrong.append(f"attempts must be from 2 to 5, not {self.attempts!r} (no retries: retry=None)")
        wrong += [
            f"{name} must be positive, not {getattr(self, name)!r}"
            for name in ("first_backoff_s", "max_backoff_s", "backoff_multiplier")
            if not getattr(self, name) > 0
        ]
        if not self.codes or not all(isinstance(code, grpc.StatusCode) and code.value[0] for code in self.codes):
            wrong.append(f"codes must be members of grpc.StatusCode other than OK, not {self.codes!r}")
        if self.methods not in ("idempotent", "all"):
            wrong.append(f"methods must be 'idempotent' or 'all', not {self.methods!r}")
        if wrong:
            raise ValueError("RetryPolicy: " + "; ".join(wrong))

    def service_config(self, methods: Iterable[Method]) -> dict[str, Any] | None:
        """Return the gRPC service config for the methods of a client, or None if it would be empty.

        Args:
            methods: The methods of the client.

        See https://github.com/grpc/grpc/blob/master/doc/service_config.md.
        """
        names: list[dict[str, str]]
        if self.methods == "all":
            names = [{}]
        else:
            names = [
                dict(zip(("service", "method"), method.path.strip("/").split("/"), strict=True))
                for method in methods
                if method.idempotency != "unknown"
            ]
        if not names:
            return None
        policy = {
            "maxAttempts": self.attempts,
            "initialBackoff": f"{self.first_backoff_s:.3f}s",
            "maxBackoff": f"{self.max_backoff_s:.3f}s",
            "backoffMultiplier": self.backoff_multiplier,
            "retryableStatusCodes": [code.name for code in self.codes],
        }
        return {
            "methodConfig": [{"name": names, "retryPolicy": policy}],
            # Retries stop while more than a tenth of the calls fail, so that an overloaded server does not receive four
            # times the load. The tokens allow a burst of 50 retries, such as the calls of one dead replica.
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Keepalive of a client: pings on idle connections during a call, to detect a peer that vanished.

    See https://github.com/grpc/grpc/blob/master/doc/keepalive.md.

    Attributes:
        time_s: Seconds without traffic before a ping; gRPC allows no less than 10. gRPC servers close connections that
            ping more often than they allow, by default every 300 seconds; Envoy, and so the SDK's ingress, allows any
            interval.
        timeout_s: Seconds without a reply after which the connection is closed and its calls end UNAVAILABLE. The
            kernel also drops the connection when sent data is not acknowledged for this time.
        without_calls: True to ping connections without calls too, for firewalls that drop idle connections.

    Raises:
        ValueError: gRPC would refuse a value.

    Example:
        >>> Keepalive(time_s=60).options()["grpc.keepalive_time_ms"]
        60000
    """

    time_s: float = 300.0
    timeout_s: float = 20.0
    without_calls: bool = False

    def __post_init__(self) -> None:
        if self.time_s < 10 or self.timeout_s <= 0:
            raise ValueError(
                f"Keepalive: time_s must be at least 10 and timeout_s positive, not {self.time_s} and {self.timeout_s}"
            )

    def options(self) -> dict[str, Any]:
        """Return the channel arguments of gRPC."""
        return {
            "grpc.keepalive_time_ms": int(self.time_s * 1000),
            "grpc.keepalive_timeout_ms": int(self.timeout_s * 1000),
            "grpc.keepalive_permit_without_calls": int(self.without_calls),
        }


def direct_options(address: str) -> dict[str, int]:
    """Return the gRPC channel arguments that keep a proxy of the environment (``http_proxy``) away from this machine.

    gRPC sends every connection to such a proxy unless ``no_proxy`` names its host
    (https://grpc.github.io/grpc/core/md_doc_environment_variables.html), and there, loopback is another machine.

    Args:
        address: gRPC target.

    Example:
        >>> direct_options("localhost:9000"), direct_options("dns:///example.com:443")
        ({'grpc.enable_http_proxy': 0}, {})
    """
    return {"grpc.enable_http_proxy": 0} if _LOOPBACK.fullmatch(address) else {}


def channel_options(
    address: str,
    methods: Iterable[Method],
    retry: RetryPolicy | None,
    keepalive: Keepalive | None,
    max_message_length: int,
    given: Sequence[tuple[str, Any]] | None,
) -> list[tuple[str, Any]]:
    """Return the gRPC channel arguments of a client. Those of the user override the others.

    Args:
        address: gRPC target.
        methods: The client's methods.
        retry: Policy for retries; None for no retries.
        keepalive: Detection of dead connections; None for no pings.
        max_message_length: Longest response message, in bytes.
        given: Channel arguments of the user.
    """
    options: dict[str, Any] = {"grpc.max_receive_message_length": max_message_length, **direct_options(address)}
    if keepalive is not None:
        options.update(keepalive.options())
    config = None if retry is None else retry.service_config(methods)
    if config is not None:
        options["grpc.service_config"] = json.dumps(config)
    return list({**options, **dict(given or ())}.items())


def parse_target(
    target: str, credentials: grpc.ChannelCredentials | None
) -> tuple[str, grpc.ChannelCredentials | None]:
    """Return the gRPC target and the channel credentials for a target as users write it.

    Args:
        target: ``"host:port"``, any other gRPC target, or an ``http://`` or ``https://`` URL without a path.
        credentials: Credentials of the user, or None.

    Raises:
        ValueError: The target is empty, a URL with a path, or an ``http://`` URL combined with credentials.

    Example:
        >>> parse_target("http://127.0.0.1:9000", None)
        ('127.0.0.1:9000', None)
    """
    scheme, separator, rest = target.partition("://")
    if not target:
        raise ValueError("the target is empty: give 'host:port'")
    if not separator or scheme not in ("http", "https"):
        return target, credentials
    host = rest.rstrip("/")
    if not host or any(mark in host for mark in "/?#@"):
        raise ValueError(f"the target {target!r} must be a host and a port only, such as '{scheme}://host:9000'")
    if scheme == "http" and credentials is not None:
        raise ValueError(f"the target {target!r} is plain text, but credentials for TLS were given: use https://")
    if ":" not in host.rpartition("]")[2]:
        host += ":443" if scheme == "https" else ":80"
    if scheme == "https" and credentials is None:
        credentials = grpc.ssl_channel_credentials()
    return host, credentials


def with_token(credentials: grpc.ChannelCredentials | None, token: Token | None) -> grpc.ChannelCredentials | None:
    """Return credentials that send a token with every call.

    Args:
        credentials: Credentials of the channel.
        token: The token, or a function that returns the current one; None for no token.

    Raises:
        ValueError: The channel has no credentials: anyone on the network path could read the token.
    """
    if token is None:
        return credentials
    if credentials is None:
        raise ValueError(
            "a token is sent over TLS only: also pass credentials, or an https:// target; on a trusted network send it "
            "as metadata, [('authorization', 'Bearer …')]"
        )
    if isinstance(token, str):
        calls = grpc.access_token_call_credentials(token)
    else:
        calls = grpc.metadata_call_credentials(_TokenPlugin(token))
    return grpc.composite_channel_credentials(credentials, calls)


class _TokenPlugin(grpc.AuthMetadataPlugin):
    """Calls the token function for every call, in a thread of grpc."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            metadata: Mapping[str, str] = {"authorization": f"Bearer {self._token()}"}
        except Exception as error:  # any error must end the call; without the callback it would wait without end
            callback((), error)
        else:
            callback(tuple(metadata.items()), None)
