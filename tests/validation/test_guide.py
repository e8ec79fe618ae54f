"""The example of docs/guides/validation.md: generated, served, and called as the page shows it."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from pathlib import Path

import pytest

import sdk.testing
from codegen.sync import Options, update

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "validation.md"


@pytest.fixture
def blocks() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
        found.setdefault(kind, []).append(text)
    return found


def test_the_example(tmp_path: Path, blocks: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    # Under other names: the tests have a service `orders`, too.
    def renamed(text: str) -> str:
        return text.replace("orders.v1", "guide_orders.v1").replace("orders_", "guide_orders_")

    (tmp_path / "guide_orders.proto").write_text(renamed(blocks["proto"][0]))
    update(Options((tmp_path / "guide_orders.proto",), tmp_path / "gen"))
    application, client = map(renamed, blocks["python"][:2])
    (tmp_path / "gen" / "guide_orders_app.py").write_text(application)
    monkeypatch.syspath_prepend(str(tmp_path / "gen"))
    module = importlib.import_module("guide_orders_app")
    try:
        with sdk.testing.serve(module.app) as server, contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(client.replace("localhost:9000", server.target), {})
    finally:
        for name in [name for name in sys.modules if name.startswith("guide_orders")]:
            del sys.modules[name]
    assert printed.getvalue() == blocks["text"][0]
