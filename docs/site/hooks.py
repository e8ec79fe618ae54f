"""Hooks of the documentation site: https://www.mkdocs.org/user-guide/configuration/#hooks.

The pages are written to be read on GitHub too, so they link to files outside ``docs``; on the site these links lead to
the repository. The pages of the public modules exist on the site only: they are their docstrings.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_API = "reference/api/"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page of each public module that the navigation names."""
    for name in _pages_of(config.nav):
        if name.startswith(_API):
            module = name.removeprefix(_API).removesuffix(".md")
            files.append(File.generated(config, name, content=f"# `{module}`\n\n::: {module}\n"))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave ``docs`` lead to the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def leads(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match[1]))
        return match[1] if path.startswith("docs/") else f"{config.repo_url}/blob/main/{path}"

    parts = _CODE.split(markdown)  # every second part is code
    return "".join(part if i % 2 else _LINK.sub(leads, part) for i, part in enumerate(parts))


def _pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    return [page for child in children for page in _pages_of(child)]
