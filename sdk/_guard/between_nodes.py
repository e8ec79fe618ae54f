"""Guard of calls between nodes: that of Ray for its own connections, with Ray's own switches.

With ``RAY_USE_TLS=1`` both ends show a certificate of Ray's authority; new files are used without a restart. With
``RAY_AUTH_MODE=token`` the caller sends a secret that only who has Ray's token can compute. With neither, anyone who
reaches a replica's port may call it, so headers that say who the client is are not believed there.
https://docs.ray.io/en/latest/ray-core/configure.html#tls-authentication
https://docs.ray.io/en/latest/ray-security/token-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from sdk._error_text import os_reason
from sdk._guard.secret_files import read_secret_file
from sdk.errors import IngressError

logger = logging.getLogger("sdk.wire")

_DEFAULT_TOKEN = Path("~/.ray/auth_token")


@dataclass(frozen=True, slots=True)
class BetweenNodes:
    """Guard of the connections between nodes.

    Attributes:
        mode: ``"tls"`` for mutual TLS, ``"token"`` for a secret, ``"none"`` for nothing.
        certificate: Path of this node's certificate in PEM.
        private_key: Path of its private key.
        ca: Path of the certificates of the authority that signs those of all nodes.
        secret: The secret, in hexadecimal; not shown.
    """

    mode: Literal["tls", "token", "none"] = "none"
    certificate: str = ""
    private_key: str = ""
    ca: str = ""
    secret: str = field(default="", repr=False)

    def server_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of a replica, which takes new files when they change; None without TLS.

        Raises:
            OSError: A file can't be read, or is not what it should be.
        """
        if self.mode != "tls":
            return None
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = _NewestFiles(self, context).choose
        return context

    def client_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of a caller's next connection, with the files as they are; None without TLS.

        Raises:
            OSError: A file can't be read, or is not what it should be.
        """
        return self._context(ssl.PROTOCOL_TLS_CLIENT) if self.mode == "tls" else None

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.check_hostname = False  # as in Ray: each node's certificate is as good as any of the authority
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.private_key)
        context.load_verify_locations(self.ca)
        return context


class _NewestFiles:
    """Gives each new connection of a server the certificates that are in the files.

    Args:
        guard: The paths of the files.
        context: The context with what they have held at first.
    """

    def __init__(self, guard: BetweenNodes, context: ssl.SSLContext) -> None:
        self._guard, self._context = guard, context
        self._state = self._read_state()

    def choose(self, connection: ssl.SSLObject, server_name: str | None, first: ssl.SSLContext) -> None:
        """Set the context of a connection, before its certificate is sent.

        It is called for each handshake, also of clients that name no server.

        Args:
            connection: The connection.
            server_name: The name that the client has sent.
            first: The context that the server was started with.
        """
        try:
            state = self._read_state()
            if state != self._state:
                self._context = self._guard._context(ssl.PROTOCOL_TLS_SERVER)
                self._state = state
                logger.info("read the new certificates of this node from %s", self._guard.certificate)
        except OSError as error:  # a file is half written, or does not fit the other: the last ones stay in force
            logger.warning("the new certificates of this node can't be used, the last ones stay in force: %s", error)
        connection.context = self._context

    def _read_state(self) -> list[tuple[int, ...]]:
        files = map(os.stat, (self._guard.certificate, self._guard.private_key, self._guard.ca))
        return [(file.st_mtime_ns, file.st_size, file.st_ino) for file in files]


#: Nothing guards calls between nodes.
UNGUARDED = BetweenNodes()


def between_nodes(environment: Mapping[str, str]) -> BetweenNodes:
    """Return how calls between nodes are guarded.

    Args:
        environment: Environment variables of a process of Ray.

    Raises:
        IngressError: Ray's variables are incomplete, or its token can't be read.

    Example:
        >>> between_nodes({}).mode
        'none'
        >>> between_nodes({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"})
        BetweenNodes(mode='token', certificate='', private_key='', ca='')
    """
    if environment.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        names = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
        paths = [environment.get(name, "") for name in names]
        missing = [name for name, path in zip(names, paths, strict=True) if not path]
        if missing:
            raise IngressError(f"RAY_USE_TLS is set, but not {', '.join(missing)}")
        return BetweenNodes("tls", *paths)
    if environment.get("RAY_AUTH_MODE", "").lower() == "token":
        return BetweenNodes("token", secret=_secret(environment))
    return UNGUARDED


def _secret(environment: Mapping[str, str]) -> str:
    """Return a secret that is derived from Ray's token: who reads it on the network can't use it against Ray."""
    token = environment.get("RAY_AUTH_TOKEN", "")
    if not token:
        token = _token_of(Path(environment.get("RAY_AUTH_TOKEN_PATH", "") or _DEFAULT_TOKEN).expanduser())
    if not token.strip():
        raise IngressError("RAY_AUTH_MODE is token, but the token is empty")
    return hmac.new(token.strip().encode(), b"ray-grpc-sdk: calls between nodes", hashlib.sha256).hexdigest()


@cache
def _token_of(path: Path) -> str:
    """Return the token in a file, as it was when this process read it first.

    Ray's processes keep their token, too: none of them can take another one while the cluster runs. So calls continue
    when the file changes or is removed.

    Raises:
        IngressError: It can't be read, or it is empty.
    """
    try:
        token = read_secret_file(str(path)).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise IngressError(f"RAY_AUTH_MODE is token, but {path} can't be read: {os_reason(error)}") from None
    if not token:
        raise IngressError(f"RAY_AUTH_MODE is token, but {path} is empty")
    return token


def own_between_nodes() -> BetweenNodes:
    """Return how this process guards calls between nodes.

    Not cached: ``ray.init`` sets Ray's variables.
    """
    return between_nodes(os.environ)
