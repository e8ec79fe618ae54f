"""Chromium for tests: one process for all of them, driven by Playwright in a separate thread.

Playwright's functions run an event loop in their thread as long as the browser runs, so no other test could run one
there. Tests with the fixture ``page`` run in that thread (tests/browser/conftest.py).

Playwright is imported when the browser starts: every process imports this module, one has the browser.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser as PlaywrightBrowser
    from playwright.sync_api import BrowserContext, Page, Playwright

T = TypeVar("T")
#: Names of Chromium: without a user interface, which costs a quarter less; Debian's, Ubuntu's and Fedora's, Google's.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Return the path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def expect(actual: Any) -> Any:
    """Return Playwright's assertions about a page or a part of one."""
    from playwright.sync_api import expect as assertions

    return assertions(actual)


class Browser:
    """One process of Chromium, and the thread in which everything happens to it.

    Args:
        executable: Path of Chromium.
    """

    def __init__(self, executable: str) -> None:
        self._thread = ThreadPoolExecutor(1, "browser")
        self._playwright, self._browser = self.run(_start, executable)

    def run(self, function: Callable[..., T], *args: Any, **named: Any) -> T:
        """Call a function in the browser's thread, and return what it returns."""
        return self._thread.submit(function, *args, **named).result()

    @contextmanager
    def page(self, **options: Any) -> Iterator[Page]:
        """Open a page without cookies or storage of others, and close it at the end of the context.

        Args:
            **options: Options of Playwright's ``new_context``.
        """
        context = self.run(self._browser.new_context, **options)
        try:
            yield self.run(_open, context)
        finally:
            self.run(context.close)

    def stop(self) -> None:
        """End the process and the thread."""
        self.run(self._browser.close)
        self.run(self._playwright.stop)
        self._thread.shutdown()


def _start(executable: str) -> tuple[Playwright, PlaywrightBrowser]:
    from playwright.sync_api import expect as assertions
    from playwright.sync_api import sync_playwright

    assertions.set_options(timeout=PATIENCE_S * 1000)
    playwright = sync_playwright().start()
    # Chromium's sandbox does not start as root, as in CI.
    browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
    return playwright, browser


def _open(context: BrowserContext) -> Page:
    context.set_default_timeout(PATIENCE_S * 1000)
    return context.new_page()
