"""A web server for the pages of tests, on a free port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Site:
    """Pages by path, which a test may change.

    Attributes:
        origin: Where browsers find them; not the origin of an ingress on 127.0.0.1.
        other_origin: Another origin with the same pages.
        pages: Path → content-type and content.
    """

    def __init__(self, port: int) -> None:
        self.origin = f"http://localhost:{port}"
        self.other_origin = f"http://other.localhost:{port}"
        self.pages: dict[str, tuple[str, bytes]] = {"/": ("text/html", b"<!doctype html><title>A page</title>")}


@contextmanager
def serve_site() -> Iterator[Site]:
    """Serve pages until the end of the context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = site.pages.get(self.path.partition("?")[0], ("", b""))
            self.send_response(200 if kind else 404)
            self.send_header("content-type", kind or "text/plain")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="site")
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
