"""Tests of the documentation: links, the index, and the page of the public names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk
from sdk._serving_status import Status

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *DOCS.rglob("*.md"),
        *(path for path in (ROOT / "examples").rglob("*.md") if "node_modules" not in path.parts),
        ROOT / "tests" / "interop" / "README.md",
    ]
)
PUBLIC = ("client", "handles", "testing")
_CALLED = re.compile(r"\bsdk\.(?:(client|context|errors|handles|options|testing)\.)?([A-Za-z]\w*)\(")


def prose_of(text: str) -> str:
    """Return Markdown without its fenced code and code spans, where brackets do not make links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def links_of(page: Path) -> Iterator[str]:
    """Yield the targets of the links and images of a page that are not URLs."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page.read_text())):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(numbered)
    return found


def broken_links_of(page: Path) -> list[str]:
    """Return the relative links of a page whose file or heading does not exist."""
    broken = []
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_links_of(page) == []


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` heading\n\n[a](page.md#a-b-heading) [b](#none) [c](gone.md) [d](https://e.f) `[e](code.md)`\n"
        "```\n[f](fenced.md)\n# no heading\n```\n[g](#no-heading)\n"
    )
    assert broken_links_of(page) == ["#none", "gone.md", "#no-heading"]


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in links_of(INDEX)}
    assert set(DOCS.rglob("*.md")) - {INDEX} - linked == set()


def test_the_api_page_has_every_public_name() -> None:
    named = set(re.findall(r"`(\w+)`", (DOCS / "reference" / "api.md").read_text()))
    names = {*sdk.__all__, *(name for module in PUBLIC for name in importlib.import_module(f"sdk.{module}").__all__)}
    assert names - named == set()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = re.findall(r"`((?:sdk|codegen|docs|examples|templates|tests)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) > 3


def test_every_name_of_the_sdk_that_a_page_uses_exists() -> None:
    """``sdk.NAME`` in any page, and the attributes of ``sdk.status()``."""
    missing = []
    for page in PAGES:
        text = page.read_text()
        for module, name in _CALLED.findall(text):
            owner = importlib.import_module(f"sdk.{module}") if module else sdk
            if not hasattr(owner, name):
                missing.append(f"{page.name}: sdk.{module + '.' if module else ''}{name}")
        missing += [
            f"{page.name}: sdk.status().{name}"
            for name in re.findall(r"\bsdk\.status\(\)\.(\w+)", text)
            if not hasattr(Status, name)
        ]
    assert missing == []
