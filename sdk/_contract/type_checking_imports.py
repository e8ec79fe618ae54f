"""Imports for type checkers only, under ``if TYPE_CHECKING:``, resolved from the source of a module.

Linters move imports that only annotations use into that block. The imported modules are usually loaded all the same
(those of messages always are), so the names can be resolved wherever the source of the importing module is available.
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
    """A name imported from a module that this process has not loaded.

    Attributes:
        name: The name in that module.
    """

    name: str


@lru_cache(maxsize=256)
def type_checking_names(module_name: str) -> Mapping[str, Any]:
    """Return the names that a module defines under ``if TYPE_CHECKING:``, with their values.

    No module is imported to find the values.

    Args:
        module_name: Name of a loaded module.

    Returns:
        For each name the imported object, :class:`NotLoaded`, or a ``ForwardRef`` with the source text of an alias.
        Empty when the source of the module is not available.

    Example:
        >>> type_checking_names("sdk.service")["FileDescriptor"].__name__
        'FileDescriptor'
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
        except ImportError:  # a relative import in a module without a package
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
