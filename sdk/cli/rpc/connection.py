"""Connection to the server of a command, from the options of the command line."""

from __future__ import annotations

import base64
import queue
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from sdk._error_text import os_reason
from sdk.client import SyncClient
from sdk.client._channel import DEFAULT_MAX_MESSAGE_LENGTH
from sdk.errors import OptionsError, ServerError

_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_WORD = re.compile(r"[!-~]+")
_LOOPBACK = re.compile(r"((http|grpc)://)?(localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d+/?$|unix:")
_LAST_PORT = 65535
# Options whose values are sent as they are.
_TEXTS = ("application", "request_id", "model_id", "tls_server_name")
# Options that are for TLS only.
_TLS = ("tls_ca", "tls_certificate", "tls_server_name")


@dataclass(frozen=True, slots=True)
class ServerConnection:
    """A connection to a server.

    Attributes:
        client: A client without RPCs; it sends its metadata and application with every call.
        target: The target on the command line.
        metadata: Metadata for calls of built-in services, such as reflection.
    """

    client: SyncClient
    target: str
    metadata: tuple[tuple[str, str | bytes], ...]

    @property
    def channel(self) -> grpc.Channel:
        """The channel of the client."""
        return self.client.channel


def connect(target: str, options: Mapping[str, Any]) -> ServerConnection:
    """Connect to a server. The caller closes the ``client``.

    Args:
        target: ``HOST:PORT``, a URL, or any target of gRPC.
        options: The values of ``server_options``.

    Raises:
        OptionsError: An option or the target is wrong.
        ServerError: The server can't be reached.
    """
    client, metadata = _open(target, options)
    try:
        _wait_until_ready(client.channel, target, options)
    except BaseException:
        client.close()
        raise
    if options["application"] is not None:
        metadata = (*(pair for pair in metadata if pair[0] != "application"), ("application", options["application"]))
    return ServerConnection(client, target, metadata)


def _open(target: str, options: Mapping[str, Any]) -> tuple[SyncClient, tuple[tuple[str, str | bytes], ...]]:
    metadata = tuple(parse_metadata(each) for each in options["metadata"])
    token = _token(target, options)
    if token is not None and not _is_tls(target, options):  # a client sends it over TLS only
        metadata, token = (*metadata, ("authorization", f"Bearer {token()}")), None
    credentials, channel_options = _credentials(options)
    longest = options["max_message_length"]
    if not target.isprintable():
        raise OptionsError(f"target {target!r} has characters that can't be printed")
    for name in _TEXTS:
        if not _TEXT.fullmatch(options.get(name) or ""):
            raise OptionsError(f"--{name.replace('_', '-')} {options[name]!r} is not printable ASCII")
    target = re.sub("^grpc(s?)://", r"http\1://", target)  # the scheme of other tools
    if not re.search(r":(\d+)?|^https?://", target):
        raise OptionsError(f"target {target!r} has no port: give HOST:PORT, such as {target}:9000")
    port = re.search(r":(\d+)/?$", target)
    if port is not None and int(port[1]) > _LAST_PORT:  # gRPC would connect to another port
        raise OptionsError(f"target {target!r}: a port is at most {_LAST_PORT}")
    try:
        client = SyncClient(
            target,
            application=options["application"],
            metadata=metadata,
            credentials=credentials,
            token=token,
            retry=None,
            max_message_length=DEFAULT_MAX_MESSAGE_LENGTH if longest is None else longest,
            options=channel_options,
        )
    except ValueError as error:
        raise OptionsError(str(error)) from None
    return client, metadata


def _token(target: str, options: Mapping[str, Any]) -> Callable[[], str] | None:
    """Return a function with the token that the options give, or None. A file is read again for each call."""
    given, path = options.get("token"), options.get("token_file")
    if given is None and path is None:
        return None

    def read() -> str:
        return str(given) if path is None else _read_token(path)

    if not _WORD.fullmatch(read()):
        raise OptionsError("the token must be one word of printable ASCII")  # without it: it is a secret
    if not _is_tls(target, options) and not _LOOPBACK.match(target):
        raise OptionsError(
            f"the token would be sent to {target} in the clear: give https://HOST:PORT, or on a trusted network "
            "-H 'authorization: Bearer …'"
        )
    return read


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise OptionsError(f"--token-file {path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise OptionsError(f"--token-file {path}: not a text") from None
    if not token:
        raise OptionsError(f"--token-file {path}: it is empty")
    return token


def _is_tls(target: str, options: Mapping[str, Any]) -> bool:
    return target.startswith(("https://", "grpcs://")) or any(options[name] for name in _TLS)


def parse_metadata(text: str) -> tuple[str, str | bytes]:
    r"""Return the pair of a ``-H`` option.

    Keys and values are limited by https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests.

    Args:
        text: ``"KEY: VALUE"``.

    Raises:
        OptionsError: The text has another form, or the key or value is invalid.

    Example:
        >>> parse_metadata("Authorization: Bearer x"), parse_metadata("trace-bin: AQI")
        (('authorization', 'Bearer x'), ('trace-bin', b'\x01\x02'))
    """
    key, colon, value = text.partition(":")
    key = key.strip().lower()
    if not colon or not _KEY.fullmatch(key):
        raise OptionsError(f"-H {text!r}: give 'KEY: VALUE', where KEY has letters, digits, '-', '_' and '.' only")
    return metadata_pair(key, value, f"-H {text!r}")


def metadata_pair(key: str, value: str, name: str) -> tuple[str, str | bytes]:
    """Return a pair of metadata as gRPC takes it.

    Args:
        key: Its key.
        value: Its value; base64 if the key ends with ``-bin``.
        name: Its name in messages.

    Raises:
        OptionsError: The key or value is invalid.
    """
    key, value = key.strip().lower(), value.strip()
    if not _KEY.fullmatch(key):
        raise OptionsError(f"{name}: a key has letters, digits, '-', '_' and '.' only")
    if key.endswith("-bin"):
        try:
            standard = value.translate(str.maketrans("-_", "+/")).rstrip("=")
            return key, base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except ValueError:
            raise OptionsError(f"{name}: the value of a key that ends with -bin must be base64") from None
    if not _TEXT.fullmatch(value):
        raise OptionsError(f"{name}: a value is printable ASCII; give other data as {key}-bin, in base64")
    return key, value


def _credentials(options: Mapping[str, Any]) -> tuple[grpc.ChannelCredentials | None, list[tuple[str, Any]]]:
    """Return the credentials that the options ask for, and the channel arguments that belong to them."""
    ca, certificate, key = (options[name] for name in ("tls_ca", "tls_certificate", "tls_private_key"))
    if (certificate is None) != (key is None):
        raise OptionsError("--tls-certificate and --tls-private-key go together")
    name = options["tls_server_name"]
    arguments = [] if name is None else [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    if ca is None and certificate is None and name is None:
        return None, []
    read = [None if path is None else _read_pem(path, option) for path, option in _named(ca, key, certificate)]
    return grpc.ssl_channel_credentials(*read), arguments


def _named(ca: Path | None, key: Path | None, certificate: Path | None) -> list[tuple[Path | None, str]]:
    return [(ca, "--tls-ca"), (key, "--tls-private-key"), (certificate, "--tls-certificate")]


def _read_pem(path: Path, option: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OptionsError(f"{option} {path}: {os_reason(error)}") from None
    if b"-----BEGIN " not in data:
        raise OptionsError(f"{option} {path}: not a PEM file")
    return data


def _wait_until_ready(channel: grpc.Channel, target: str, options: Mapping[str, Any]) -> None:
    """Connect, and return when the connection is ready.

    See https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md.
    """
    timeout = options["connect_timeout"]
    is_tls = _is_tls(target, options)
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    deadline = time.monotonic() + timeout
    channel.subscribe(states.put, try_to_connect=True)
    try:
        while True:
            state = states.get(timeout=max(0.0, deadline - time.monotonic()))
            if state is grpc.ChannelConnectivity.READY:
                return
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                break
    except queue.Empty:
        raise ServerError(_unreachable(target, is_tls, f"no connection within {timeout:g} s")) from None
    finally:
        channel.unsubscribe(states.put)
    # Only a call returns the reason of the failure. It fails at once, since the channel is in its backoff.
    try:
        channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"", timeout=timeout)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise ServerError(_unreachable(target, is_tls, error.details() or "no reason given")) from None
    # With any other status, the server has answered: it has become reachable meanwhile.


def _unreachable(target: str, is_tls: bool, why: str) -> str:
    if is_tls:
        remedy = (
            "Check that it is running and uses TLS. Give --tls-ca FILE if this machine does not trust its certificate, "
            "and --tls-server-name NAME if the certificate has another name."
        )
    else:
        remedy = "Check that it is running. If it uses TLS, give https://HOST:PORT."
    return f"The server at {target} can't be reached: {why}\n{remedy}"
