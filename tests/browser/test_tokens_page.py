"""The page of the example ``tokens``, in Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sdk.testing
from sdk import GrpcOptions
from tests.browser.conftest import NODE_FOLDER, bundle
from tests.support.browser import expect
from tests.support.cluster import ROOT, share_with_replicas
from tests.support.loops import PATIENCE_S
from tests.support.site import Site
from tests.web.node_clients import NODE

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXAMPLE = ROOT / "examples" / "tokens"
share_with_replicas(EXAMPLE)


@pytest.fixture(scope="module")
def model(site: Site) -> Iterator[sdk.testing.Server]:
    from language_model_app import LanguageModel

    with sdk.testing.serve(LanguageModel.bind(), options=GrpcOptions(cors_origins=(site.origin,))) as server:
        yield server


@pytest.fixture(scope="module")
def example(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the page as its README says, and return its address."""
    folder = Path(tmp_path_factory.mktemp("page"), "web")
    shutil.copytree(EXAMPLE / "web", folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(NODE_FOLDER / "node_modules")
    command = json.loads((folder / "package.json").read_text())["scripts"]["generate"]
    words = [sys.executable if word == "python" else word for word in command.split()]
    words[words.index("..")] = str(EXAMPLE)
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(words, cwd=folder, env={**os.environ, "PATH": path}, check=True)
    bundle(folder / "main.js", folder / "page.js")
    for name, kind in (("index.html", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        site.pages[f"/{name}"] = (kind, (folder / name).read_bytes())
    return f"{site.origin}/index.html"


def test_its_packages_are_those_that_are_tested() -> None:
    wanted = json.loads((EXAMPLE / "web" / "package.json").read_text())
    tested = json.loads((NODE_FOLDER / "package.json").read_text())["dependencies"]
    packages = {**wanted["dependencies"], **wanted["devDependencies"]}
    assert packages == {name: tested[name] for name in packages}


@pytest.mark.parametrize("client", ["connect", "connect-grpc-web", "grpc-web"])
def test_tokens_come_one_by_one_and_stop(page: Page, model: sdk.testing.Server, example: str, client: str) -> None:
    from language_model_app import LanguageModel

    served = model.instance(LanguageModel)
    page.goto(f"{example}?ingress=http://{model.target}")
    page.get_by_label("Client").select_option(client)
    page.get_by_label("Tokens at most").fill("3")
    served.step_s = 0
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_have_text("3 tokens: LENGTH")
    assert len(page.locator("#answer").inner_text().replace(",", " ,").replace(".", " .").split()) == 2 + 3

    abandoned = served.stats.abandoned
    served.step_s = 0.1
    page.get_by_label("Tokens at most").fill("500")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#answer")).to_have_text(re.compile(r"^The river \S"))
    served.step_s = 3600  # until the page stops it
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_contain_text("then you stopped it")
    until = time.monotonic() + PATIENCE_S
    while served.stats.abandoned == abandoned:
        assert time.monotonic() < until, "the handler still generates"
        time.sleep(0.01)


def test_the_page_says_what_is_wrong(page: Page, model: sdk.testing.Server, example: str) -> None:
    page.goto(f"{example}?ingress=http://{model.target}")
    page.evaluate("document.querySelector('[name=maxTokens]').removeAttribute('min')")
    page.get_by_label("Tokens at most").fill("-1")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("InvalidArgument: max_tokens must be from 0 to")
