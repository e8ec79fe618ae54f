"""Chromium, and the test server whose pages and services it calls."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, ApiKey, Rule
from tests.support.browser import find_chromium
from tests.support.site import Site, serve_site
from tests.web import conftest as web  # generates the code of its protos
from tests.web.node_clients import NODE

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.support.browser import Browser

#: The key of clients of the guarded server.
API_KEY = "the-key-of-a-page"
NODE_FOLDER = web.HERE / "node"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test with a page in the browser's thread."""
    if "page" not in pyfuncitem.fixturenames:
        return None
    function = pyfuncitem.obj
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}
    browser: Browser = pyfuncitem.funcargs["browser"]
    browser.run(function, **arguments)
    return True


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium for all tests of this folder."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("Chromium is not installed: `make debian` installs Debian's, with apt-get and as root")
    from tests.support.browser import Browser

    found = Browser(executable)
    yield found
    found.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.page() as page:
        yield page


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Serve pages of another origin."""
    with serve_site() as site:
        yield site


@pytest.fixture(scope="session")
def server(site: Site) -> Iterator[sdk.testing.Server]:
    """Serve the application of the web tests, for pages of this and of another origin."""
    from tests.web.chat_app import Chat

    options = GrpcOptions(cors_origins=(site.origin,), cors_headers=("x-mine",))
    with sdk.testing.serve(Chat.bind(), options=options) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sdk.testing.Server]:
    """Serve the same application for clients with an API key."""
    from tests.web.chat_app import Chat

    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"page sha256:{hashlib.sha256(API_KEY.encode()).hexdigest()}\n")
    access = Access(api_keys=str(keys), rules=(Rule(ApiKey("*")),))
    with sdk.testing.serve(Chat.bind(), options=GrpcOptions(access=access)) as server:
        yield server


def bundle(entry: Path, output: Path) -> str:
    """Return the script of an entry point with all that it imports from the ``node_modules`` next to it."""
    esbuild = NODE_FOLDER / "node_modules" / "esbuild" / "bin" / "esbuild"
    if not esbuild.exists():
        raise FileNotFoundError("the packages of the web clients are not installed: run `make node-client`")
    subprocess.run(
        [NODE, esbuild, entry, "--bundle", "--format=iife", f"--outfile={output}", "--log-level=warning"], check=True
    )
    return output.read_text()
