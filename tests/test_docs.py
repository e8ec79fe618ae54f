"""Tests of the documentation: links, the index, the pages of public names and of errors, and the site."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

import sdk
import sdk.errors
from sdk._serving_status import Status
from sdk.cli.errors import exit_code

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


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    named = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - named == set()


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr  # `strict` of mkdocs.yml: warnings are errors
    pages = {page: page.read_text() for page in tmp_path.rglob("*.html")}
    assert "invocation_metadata" in pages[tmp_path / "reference" / "api" / "sdk.context.html"]
    loaded = [
        found for text in pages.values() for found in re.findall(r'<(?:script|img)[^>]* src="(https?:[^"]+)"', text)
    ]
    loaded += [
        found for text in pages.values() for found in re.findall(r'<link rel="stylesheet" href="(https?:[^"]+)"', text)
    ]
    assert loaded == [], "the pages load nothing from elsewhere"


def test_the_catalogue_has_every_exception_with_its_exit_code() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \|.*\| (\d|none) \|$", _errors_page(), re.MULTILINE)
    classes = {
        name: found
        for name, found in vars(sdk.errors).items()
        if isinstance(found, type) and issubclass(found, sdk.SdkError) and found is not sdk.SdkError
    }
    assert sorted(name for name, _ in rows) == sorted(classes)
    codes = {name: str(exit_code(found.__new__(found))) for name, found in classes.items()}
    assert [(name, code) for name, code in rows if code not in (codes[name], "none")] == []


def test_the_texts_of_statuses_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| [A-Z_]+ \| ([^|]*`[^|]+) \|", _errors_page(), re.MULTILINE)
    texts = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    parts = [part.strip(" `") for text in texts for part in text.split("…")]
    constants = "\n".join(_constants())
    assert [part for part in parts if len(part) > 2 and part not in constants] == []
    assert len(texts) > 20


def test_the_catalogue_has_every_status_of_the_code() -> None:
    """Each text that is written next to a status code: one of its parts is in the catalogue."""
    page = _errors_page()
    found = [(where, text) for room in STATUS_ROOMS for where, text in _statuses(room)]
    assert [(where, "…".join(text)) for where, text in found if not any(part in page for part in text)] == []
    assert len(found) > 30


STATUS_ROOMS = ("_channel", "_ingress", "_serve", "_wire", "handles")
# Parts of an f-string that are shorter are only words between two values.
_SHORTEST_PART = 9


def _statuses(room: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the texts that follow a status code as an argument or in a tuple, those of f-strings in pieces."""
    codes = {code.name for code in grpc.StatusCode}
    for path in sorted((ROOT / "sdk" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            values = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
            for code, text in pairwise(values):
                if {getattr(code, "attr", ""), getattr(code, "id", "")} & codes:
                    parts = [
                        each.value.strip(" '.:;(")
                        for each in (text.values if isinstance(text, ast.JoinedStr) else [text])
                        if isinstance(each, ast.Constant) and isinstance(each.value, str)
                    ]
                    parts = [part for part in parts if len(part) >= _SHORTEST_PART]
                    if parts:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", parts


def _errors_page() -> str:
    return (DOCS / "reference" / "errors.md").read_text()


def _constants() -> Iterator[str]:
    """Yield the string constants of the SDK, those of f-strings in pieces."""
    for path in (ROOT / "sdk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
