"""Location of the templates: inside the package in the wheel, next to it in the source tree."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def template_folders(name: str = "") -> tuple[Path, ...]:
    """Return the folders that may hold templates, first choice first. One of them exists.

    Args:
        name: A folder of ``templates``: ``"python"`` or ``"project"``; ``""`` for all.
    """
    return tuple(parent / "templates" / name for parent in (_HERE, _HERE.parent))
