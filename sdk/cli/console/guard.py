"""Refusal of requests that do not come from the console's own page.

A page of another site can send requests to 127.0.0.1, and by a name that changes its address (DNS rebinding) it can
also read the answers. So the console looks at the host and the origin of each request, and its API asks for a token
that only the one who started it knows.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Header with the token.
TOKEN_HEADER = "x-console-token"


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks the headers of requests.

    Args:
        port: Port of the console.
        token: The token of its API.
    """

    port: int
    token: str = field(repr=False)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the console in a browser."""
        return tuple(f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]"))

    def problem(self, headers: Mapping[str, str], *, is_api: bool) -> str:
        """Return the reason to refuse a request; empty to answer it.

        Args:
            headers: Its headers, by lowercase name or in a mapping that ignores case.
            is_api: Whether it needs the token.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts:
            return f"the host of the request is {host!r}: open the console at http://{self.hosts[0]}"
        if origin is not None and origin not in tuple(f"http://{known}" for known in self.hosts):
            return f"pages of {origin} may not call the console"
        # https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
        if is_api and headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "pages of another site may not call the console"
        if is_api and not hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode()):
            return "the token is missing or wrong: open the link that `sdk console` has printed"
        return ""
