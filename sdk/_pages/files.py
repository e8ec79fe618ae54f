"""The files of the pages, as HTTP responses. They do not depend on the applications: anyone may read them.

A page loads nothing from another origin, and its Content-Security-Policy makes sure of that:
https://developer.mozilla.org/docs/Web/HTTP/Guides/CSP.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sdk._replica_protocol import DOCS_PATH, PAGES_PREFIX

_STATIC = Path(__file__).parent / "static"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: The files of a page in addition to its HTML.
_FILES = {
    DOCS_PATH: ("docs.css", "docs.js", "icon.svg"),
}
# Swagger UI (https://swagger.io/tools/swagger-ui/), from the package fastapi-offline.
_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    "x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\ncross-origin-opener-policy: same-origin\r\n"
    # A new version of the SDK has new files.
    "cache-control: no-cache\r\n"
)


class Pages:
    """Answers the requests for the pages and their files.

    Args:
        paths: Paths of the pages that are served.
    """

    def __init__(self, *paths: str) -> None:
        self._names: Mapping[str, str] = {
            **{f"{path}{end}": f"{path[1:]}.html" for path in paths for end in ("", "/")},
            **{f"{PAGES_PREFIX}{name}": name for path in paths for name in _FILES[path]},
            **({f"{PAGES_PREFIX}{name}": name for name in _SWAGGER_UI} if DOCS_PATH in paths else {}),
        }

    def answer(self, path: str) -> bytes | None:
        """Return the whole response to a GET; None for a path of none of the files.

        Args:
            path: The path without the query.
        """
        name = self._names.get(path)
        return None if name is None else _response(name)


def read_file(name: str) -> tuple[str, bytes]:
    """Return the content-type and the content of a file.

    Args:
        name: Its name, ``"docs.html"``.
    """
    folder = _swagger_ui() if name in _SWAGGER_UI else _STATIC
    return _KINDS[Path(name).suffix], (folder / name).read_bytes()


@cache
def _response(name: str) -> bytes:
    kind, content = read_file(name)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n{_HEADERS}"
    return f"{head}content-security-policy: {_POLICY}\r\n\r\n".encode() + content


def _swagger_ui() -> Path:
    # Not imported: that would import FastAPI.
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "static"
