"""Modules of the user's folders that hide ours: Python takes the first folder of its path that has the name."""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).resolve().parents[2]


def hiding_module(folder: Path, name: str) -> str | None:
    """Return what would be imported in place of our package ``name`` with ``folder`` first on the path, if anything.

    Args:
        folder: The working directory, or that of the program.
        name: ``"sdk"`` or ``"codegen"``.

    Returns:
        A package with a slash at its end, or a module. None for the installed package, and for a folder without
        ``__init__.py``: a package that comes later on the path is taken before it
        (https://docs.python.org/3/reference/import.html#namespace-packages).
    """
    if folder.resolve() == _INSTALLED:
        return None
    if (folder / name / "__init__.py").exists():
        return f"{folder / name}/"
    module = folder / f"{name}.py"
    return str(module) if module.exists() else None
