"""Add ``from … import …`` statements to the lines of a module, where isort would have them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# Black's, ruff's and isort's own width is 88; a file with longer lines has a longer one.
_WIDTH = 88

_Statement = ast.Import | ast.ImportFrom


class ImportedName(NamedTuple):
    """A name to import.

    Attributes:
        module: The module.
        name: The name in the module.
        alias: The name here, usually the same.
    """

    module: str
    name: str
    alias: str

    def __str__(self) -> str:
        return self.name if self.name == self.alias else f"{self.name} as {self.alias}"


def add_imports(lines: list[str], tree: ast.Module, imports: Iterable[ImportedName], package: str) -> None:
    """Add imports to the top of a module: to a statement that imports from the same module, or as a new one.

    Args:
        lines: The lines of the module; changed in place. Below its imports they may differ from the tree.
        tree: The module as it was read.
        imports: The imports.
        package: The package of the module, for its relative imports.
    """
    names: dict[str, list[str]] = {}
    for each in imports:
        names.setdefault(each.module, []).append(str(each))
    width = max([_WIDTH, *(len(line) for line in lines if "http" not in line)])
    top = _top(tree)
    absolute = {node: _absolute(node, package) for node in top}
    edits = [_edit(lines, absolute, module, sorted(found), width) for module, found in names.items()]
    if not top:
        added = [f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(names.items())]
        after = _first_line(tree)
        lines[after:after] = [*([""] if after else []), *added, *([] if after and not lines[after].strip() else [""])]
        return
    for begin, end, new in sorted(edits, key=lambda edit: (edit[0], edit[1], edit[2]), reverse=True):
        lines[begin:end] = new


def _top(tree: ast.Module) -> list[_Statement]:
    """Return the imports at the top of a module, up to the first statement that is something else."""
    found: list[_Statement] = []
    for position, node in enumerate(tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif not (position == 0 and _is_docstring(node)):
            break
    return found


def _first_line(tree: ast.Module) -> int:
    first = tree.body[0]
    return (first.end_lineno or 0) if _is_docstring(first) else 0


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _edit(
    lines: Sequence[str], absolute: Mapping[_Statement, str], module: str, names: list[str], width: int
) -> tuple[int, int, list[str]]:
    """Return the lines to replace, from and to, and what replaces them."""
    top = list(absolute)
    for node in top:
        if isinstance(node, ast.ImportFrom) and absolute[node] == module:
            merged = _merged(lines, node, names, width)
            if merged is not None:
                return node.lineno - 1, node.end_lineno or node.lineno, merged
    new = [f"from {module} import {', '.join(names)}"]
    if len(new[0]) > width:
        new = [f"from {module} import (", *(f"    {name}," for name in names), ")"]
    section = [node for node in top if _rank(_module(node)) == _rank(module)]
    same = [node for node in section if _module(node).split(".")[0] == module.split(".")[0]]
    if not section:
        later = [node for node in top if _rank(_module(node)) > _rank(module)]
        if later:
            return later[0].lineno - 1, later[0].lineno - 1, [*new, ""]
        end = top[-1].end_lineno or 0
        return end, end, ["", *new]
    for node in section:
        if (not same or node in same) and isinstance(node, ast.ImportFrom) and _module(node) > module:
            return node.lineno - 1, node.lineno - 1, new
    end = (same or section)[-1].end_lineno or 0
    return end, end, new


def _merged(lines: Sequence[str], node: ast.ImportFrom, names: list[str], width: int) -> list[str] | None:
    """Return a statement with more names in its own layout, or None if it has comments."""
    old = lines[node.lineno - 1 : node.end_lineno]
    if any("#" in line or ";" in line or "\\" in line for line in old) or node.names[0].name == "*":
        return None
    present = [alias.name if alias.asname is None else f"{alias.name} as {alias.asname}" for alias in node.names]
    # ruff's order: constants, classes, other names.
    merged = sorted({*present, *names}, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    prefix = old[0][: old[0].index("import") + len("import")]
    line = f"{prefix} {', '.join(merged)}"
    if len(old) == 1 and len(line) <= width:
        return [line]
    return [f"{prefix} (", *(f"    {name}," for name in merged), ")"]


def _absolute(node: _Statement, package: str) -> str:
    name = _module(node)
    return importlib.util.resolve_name(name, package) if name.startswith(".") and package else name


def _module(node: _Statement) -> str:
    return node.names[0].name if isinstance(node, ast.Import) else "." * node.level + (node.module or "")


def _rank(module: str) -> int:
    """Return the section of an import: the future, the standard library, other packages, this package."""
    if module == "__future__":
        return 0
    if module.startswith("."):
        return 3
    return 1 if module.split(".")[0] in sys.stdlib_module_names else 2
