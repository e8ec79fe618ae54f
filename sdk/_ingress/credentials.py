"""Keys with which Envoy checks credentials: read from files and URLs, and again when they change.

The proxy reads them, not Envoy: an invalid file or an issuer that does not answer is then a clear message, and the last
valid keys stay in force. To Envoy such an issuer would be a reason to refuse every token.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from sdk._error_text import os_reason
from sdk._guard.secret_files import MAX_BYTES, read_secret_file, warn_of_mode
from sdk._xds.access_filters import KeyMaterial
from sdk.access import API_KEY_NAME, check_jwks

if TYPE_CHECKING:
    from sdk.access import Access, JwtIssuer

logger = logging.getLogger("sdk.ingress")

# Seconds between two looks at the files.
_POLL_S = 1.0
_URL_TIMEOUT_S = 5.0
# Seconds until another try of a URL that has not answered.
_URL_RETRY_S = 10.0
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")


class _Source(NamedTuple):
    """A file or URL as it was read last.

    Attributes:
        state: What changes with a file's content; None for a URL.
        read_at: Time of the read, monotonic seconds.
        wait_s: Seconds until the next read of a URL.
    """

    state: tuple[int, ...] | None
    read_at: float
    wait_s: float


class Credentials:
    """The keys of the options in force.

    Attributes:
        keys: The last valid keys.
    """

    def __init__(self) -> None:
        self.keys = KeyMaterial()
        self._access: Access | None = None
        self._sources: dict[str, _Source] = {}
        self._texts: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self._reading = asyncio.Lock()

    @property
    def problem(self) -> str:
        """The errors of the files and URLs, or an empty string."""
        return "; ".join(self._problems[source] for source in sorted(self._problems))

    async def load(self, access: Access | None) -> KeyMaterial:
        """Return the keys that these options name, and read those that have not been read.

        Args:
            access: The options.
        """
        async with self._reading:
            if access != self._access:
                self._access = access
                await self._refresh()
            return self.keys

    async def watch(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Look at the files every second and at URLs as often as the options say, without end.

        Args:
            on_change: Called when the keys, or what is wrong with them, have changed.
        """
        while True:
            await asyncio.sleep(_POLL_S)
            if self._access is None:
                continue
            try:
                async with self._reading:
                    before = self.keys, self.problem  # not earlier: what `load` reads meanwhile is not a change
                    await self._refresh()
                if (self.keys, self.problem) != before:
                    await on_change()
            except Exception:  # without this loop the proxy would keep old keys
                logger.exception("reading keys failed; trying again")

    async def _refresh(self) -> None:
        access = self._access
        issuers = access.issuers if access is not None else ()
        sources: dict[str, JwtIssuer | None] = {}
        if access is not None and access.api_keys is not None:
            sources[access.api_keys] = None
        for issuer in issuers:
            source = issuer.jwks_path or issuer.jwks_url
            if source is not None:
                sources[source] = issuer
        for gone in self._sources.keys() - sources.keys():
            del self._sources[gone]
            self._texts.pop(gone, None)
            self._problems.pop(gone, None)
        for source, issuer_or_none in sources.items():
            await self._read(source, issuer_or_none)
        jwks = {issuer.issuer: self._texts.get(issuer.jwks_path or issuer.jwks_url or "", "") for issuer in issuers}
        for issuer in issuers:
            if issuer.jwks_path is None and issuer.jwks_url is None:
                jwks[issuer.issuer] = issuer.jwks
        names: dict[str, str] = {}
        if access is not None and access.api_keys is not None:
            names, _ = parse_api_keys(self._texts.get(access.api_keys, ""))
        self.keys = KeyMaterial({issuer: text for issuer, text in jwks.items() if text}, names)

    async def _read(self, source: str, issuer: JwtIssuer | None) -> None:
        before, now = self._sources.get(source), time.monotonic()
        is_url = issuer is not None and issuer.jwks_url == source
        if is_url and before is not None and now < before.read_at + before.wait_s:
            return
        try:
            state = None if is_url else _state_of(source)
            if not is_url and before is not None and before.state == state:
                return
            text = await asyncio.to_thread(_fetch if is_url else _read_file, source)
            wrong = list(check_jwks(text)) if issuer is not None else parse_api_keys(text)[1]
        except (OSError, ValueError) as error:
            state = None
            cause = getattr(error, "reason", error)  # urllib wraps what the system says
            wrong = [f"can't be read: {os_reason(cause)}"]
        wait_s = (_URL_RETRY_S if wrong else issuer.refresh_s) if issuer is not None else 0.0
        self._sources[source] = _Source(state, now, wait_s)
        if not wrong:
            if source in self._texts and self._texts[source] != text:
                logger.info("read new keys from %s", source)
            self._texts[source] = text
            self._problems.pop(source, None)
            if not is_url:
                warn_of_mode(source, is_secret=issuer is None or '"oct"' in text)
            return
        kept = "; the last valid keys stay in force" if source in self._texts else ""
        problem = f"access: {source} {', '.join(wrong)}{kept}"
        if self._problems.get(source) != problem:
            logger.error("%s", problem)
        self._problems[source] = problem


def parse_api_keys(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the API keys of a file, digest → name, and what is wrong with the file.

    Args:
        text: Lines of a name and ``sha256:`` with 64 hexadecimal digits; ``#`` begins a comment.

    Example:
        >>> parse_api_keys("batch sha256:" + "0" * 64)
        ({'0000000000000000000000000000000000000000000000000000000000000000': 'batch'}, [])
        >>> parse_api_keys("batch my-key")
        ({}, ['line 1: expected `NAME sha256:HEX`, as `sdk apikey NAME` prints it'])
    """
    names: dict[str, str] = {}
    wrong = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        digest = _DIGEST.match(words[1]) if len(words) == 2 else None
        if digest is None or not API_KEY_NAME.match(words[0]):
            # Not the line: it may be a key in the clear.
            wrong.append(f"line {number}: expected `NAME sha256:HEX`, as `sdk apikey NAME` prints it")
        elif digest[1] in names:
            wrong.append(f"line {number}: the same key as that of {names[digest[1]]}")
        else:
            names[digest[1]] = words[0]
    return ({}, wrong) if wrong else (names, [])


def _state_of(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


def _read_file(path: str) -> str:
    return read_secret_file(path).decode("utf-8")


def _fetch(url: str) -> str:
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # http or https
    with urllib.request.urlopen(request, timeout=_URL_TIMEOUT_S) as response:  # as above
        data: bytes = response.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return data.decode("utf-8")
