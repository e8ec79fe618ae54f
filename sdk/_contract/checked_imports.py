"""What a module imports for type checkers only, under ``if TYPE_CHECKING:``.

Linters move imports there that only annotations use. The modules themselves are loaded as a rule, those of messages
always: so the names can be found, where the source of the module is.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A name of a module that this process has not loaded; ``name`` is what that module calls it."""

    name: str


@lru_cache(maxsize=256)
def checked_names(module_name: str) -> Mapping[str, Any]:
    """Return what the names stand for that a module defines under ``if TYPE_CHECKING:``.

    Nothing is imported for it.

    Args:
        module_name: Name of a loaded module.

    Returns:
        By name: what is imported, :class:`NotLoaded`, or a ``ForwardRef`` with the text of an alias. Empty when the
        module has no source.
    """
    module = sys.modules.get(module_name)
    if module is None:
        return {}
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    package = getattr(module, "__package__", None) or ""
    return {
        name: value
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
        for statement in node.body
        for name, value in _defined(statement, package)
    }


def _defined(statement: ast.stmt, package: str) -> Iterator[tuple[str, Any]]:
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            found = sys.modules.get(alias.name if alias.asname else bound)
            yield bound, found if found is not None else NotLoaded(bound)
    elif isinstance(statement, ast.ImportFrom):
        source = "." * statement.level + (statement.module or "")
        try:
            source = importlib.util.resolve_name(source, package)
        except ImportError:  # relative, in what is no package
            return
        for alias in statement.names:
            missing = sys.modules.get(f"{source}.{alias.name}", NotLoaded(alias.name))
            yield alias.asname or alias.name, getattr(sys.modules.get(source), alias.name, missing)
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, typing.ForwardRef(ast.unparse(statement.value))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, typing.ForwardRef(ast.unparse(statement.value))
