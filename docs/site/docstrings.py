"""Docstrings as Markdown: the double colon before an indented block is reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class DocstringsAsMarkdown(Extension):
    """Remove lines that are ``::`` only, and the second colon at the end of a line."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            text = re.sub(r"^ *::\n\n?", "", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"(?<=\w)::$", ":", text, flags=re.MULTILINE)
