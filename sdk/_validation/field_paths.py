"""Paths of fields in violations, as text: ``items[0].sku``, ``labels["team"]``."""

from __future__ import annotations

import json
from typing import Any


def format_path(path: Any) -> str:
    """Return a ``buf.validate.FieldPath`` as text; an empty one for the message as a whole.

    Args:
        path: The path, of protovalidate's own message classes, or None.
    """
    return ".".join(map(_format, path.elements)) if path is not None else ""


def _format(element: Any) -> str:
    subscript = element.subscript
    if subscript is None:
        return str(element.field_name)
    # JSON writes strings, numbers and booleans as proto's text format does.
    return f"{element.field_name}[{json.dumps(subscript.value, ensure_ascii=False)}]"
