"""How the generated clients reach a server: target, credentials, retries, keepalive and limits of their channels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import grpc

if TYPE_CHECKING:
    from sdk.service import Method

#: Longest message that a client takes, and that the ingress takes of a client when it is not told otherwise.
DEFAULT_MAX_MESSAGE_LENGTH = 64 << 20

Token = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which calls a client makes again, and when (gRFC A6).

    A call is made again only while the client has seen nothing of its answer, and only for these codes. By default that
    is UNAVAILABLE, the one code that speaks of the way to a handler and not of the handler. It does not say whether the
    handler ran: no replica was ready, or the one that had the call died amid it. So by default only those methods
    are called again whose proto says that this is harmless (``option idempotency_level = NO_SIDE_EFFECTS`` or
    ``IDEMPOTENT``). Whatever the policy, gRPC itself sends a call again that never left the client or that the server
    has certainly not looked at, and Envoy one that no replica took.

    Attributes:
        attempts: Most attempts of a call, from 2 to 5, the first one counted.
        first_backoff_s: Seconds before the second attempt; the exact time is random, up to a fifth off.
        max_backoff_s: Most seconds between two attempts.
        backoff_multiplier: How much longer each wait is than the one before.
        codes: Status codes for which a call is made again.
        methods: ``"idempotent"`` for those that the proto marks, ``"all"`` for every method.

    Raises:
        ValueError: A value that gRPC would not take; the text lists every wrong one.

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
        """Return gRPC's service config for these methods of a client, or None when it would say nothing."""
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
            # When more than a tenth of the calls fail, over time, they are not made again: a server in trouble does not
            # get four times the load. The tokens let a burst of 50 be repeated, such as the calls of one dead replica.
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }


@dataclass(frozen=True, slots=True)
class Keepalive:
    """How a client notices that its peer is gone without a word: a ping on connections that are silent during a call.

    Attributes:
        time_s: Seconds of silence before a ping; gRPC takes no less than 10. Servers of gRPC end connections that ping
            more often than they allow, by default every 300 seconds; Envoy, and so the SDK's ingress, allows any.
        timeout_s: Seconds without an answer after which the connection is given up, and its calls end UNAVAILABLE. The
            kernel too gives up what it has sent in vain for so long.
        without_calls: Whether connections without calls are kept alive too: for firewalls that forget idle ones.

    Raises:
        ValueError: A value that gRPC would not take.
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


def channel_options(
    methods: Iterable[Method],
    retry: RetryPolicy | None,
    keepalive: Keepalive | None,
    max_message_length: int,
    given: Sequence[tuple[str, Any]] | None,
) -> list[tuple[str, Any]]:
    """Return the channel arguments of a client; those that the user has given replace ours.

    Args:
        methods: The client's methods.
        retry: When calls are made again; None for never.
        keepalive: How dead peers are noticed; None for not at all.
        max_message_length: Longest response message, in bytes.
        given: The user's own.
    """
    options: dict[str, Any] = {"grpc.max_receive_message_length": max_message_length}
    if keepalive is not None:
        options.update(keepalive.options())
    config = None if retry is None else retry.service_config(methods)
    if config is not None:
        options["grpc.service_config"] = json.dumps(config)
    return list({**options, **dict(given or ())}.items())


def parse_target(
    target: str, credentials: grpc.ChannelCredentials | None
) -> tuple[str, grpc.ChannelCredentials | None]:
    """Return gRPC's target and the credentials for what a user has written.

    Args:
        target: ``"host:port"``, any target of gRPC, or an ``http://`` or ``https://`` URL without a path.
        credentials: Those that the user has given.

    Raises:
        ValueError: It is empty, a URL with a path, or an ``http://`` URL together with credentials.

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
        raise ValueError(f"the target {target!r} says plain text, and there are credentials for TLS: write https://")
    if ":" not in host.rpartition("]")[2]:
        host += ":443" if scheme == "https" else ":80"
    if scheme == "https" and credentials is None:
        credentials = grpc.ssl_channel_credentials()
    return host, credentials


def with_token(credentials: grpc.ChannelCredentials | None, token: Token | None) -> grpc.ChannelCredentials | None:
    """Return credentials that send a token with every call.

    Args:
        credentials: Those of the channel.
        token: The token, or what returns the one that is valid now; None for none.

    Raises:
        ValueError: The channel has no credentials: everybody on the way could read the token.
    """
    if token is None:
        return credentials
    if credentials is None:
        raise ValueError(
            "a token is sent over TLS only: give credentials, or an https:// target, besides it; on a trusted network "
            "send it as metadata, [('authorization', 'Bearer …')]"
        )
    if isinstance(token, str):
        calls = grpc.access_token_call_credentials(token)
    else:
        calls = grpc.metadata_call_credentials(_TokenPlugin(token))
    return grpc.composite_channel_credentials(credentials, calls)


class _TokenPlugin(grpc.AuthMetadataPlugin):
    """Asks for the token at every call, in a thread of grpc's."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            metadata: Mapping[str, str] = {"authorization": f"Bearer {self._token()}"}
        except Exception as error:  # whatever it is, the call ends with it, instead of waiting for ever
            callback((), error)
        else:
            callback(tuple(metadata.items()), None)
