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
# Swagger UI (https://swagger.io/tools/swagger-ui/), from the package fastapi-offline.
_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Headers of every file.
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # a new version of the SDK has new files
    "content-security-policy": _POLICY,
}


class Pages:
    """Answers the requests for the pages and their files.

    Args:
        paths: Paths of the pages that are served.
    """

    def __init__(self, *paths: str) -> None:
        self._names: Mapping[str, str] = {url: name for path in paths for url, name in names_of(path).items()}

    def answer(self, path: str) -> bytes | None:
        """Return the whole response to a GET; None for a path of none of the files.

        Args:
            path: The path without the query.
        """
        name = self._names.get(path)
        return None if name is None else _response(name)


def names_of(page: str) -> dict[str, str]:
    """Return the path of each file of a page, with the name of the file.

    Args:
        page: Path of the page, ``"/docs"``.

    Example:
        >>> names_of("/docs")["/docs/"], names_of("/docs")["/-/pages/docs.js"]
        ('docs.html', 'docs.js')
    """
    name = page[1:]
    files = {f"{name}.css", f"{name}.js", "icon.svg"}
    files |= {f"{name}/{path.name}" for path in (_STATIC / name).glob("*")}
    files |= set(_SWAGGER_UI) if page == DOCS_PATH else set()
    return {f"{page}{end}": f"{name}.html" for end in ("", "/")} | {f"{PAGES_PREFIX}{each}": each for each in files}


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
    head = {"content-type": kind, "content-length": str(len(content)), **HEADERS}
    lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + content


def _swagger_ui() -> Path:
    # Not imported: that would import FastAPI.
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "static"
