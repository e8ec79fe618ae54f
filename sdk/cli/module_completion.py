"""Shell completion of ``MODULE[:NAME]``: modules below the working directory, and names in them, without imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

_GENERATED = ("_pb2", "_pb2_grpc", "_sdk")
_CONFIG_FILES = (".yaml", ".yml", ".json")


def complete_module(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the modules, or the names after a colon, that begin with a prefix.

    Args:
        ctx: The parsed part of the command line.
        param: The argument.
        incomplete: The prefix, ``"shop.ser"`` or ``"shop.service:a"``.
    """
    module, colon, prefix = incomplete.partition(":")
    found = (f"{module}:{name}" for name in _names(module)) if colon else _modules(module)
    start = f"{module}:{prefix}" if colon else incomplete
    return sorted(name for name in found if name.startswith(start))


def complete_module_or_config(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what :func:`complete_module` does, and config files."""
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    files = (path for path in _listed(folder) if path.suffix in _CONFIG_FILES or path.is_dir())
    configs = (f"{path}/" if path.is_dir() else str(path) for path in files) if "/" in incomplete else ()
    here = [path.name for path in _listed(Path()) if path.suffix in _CONFIG_FILES and path.name.startswith(incomplete)]
    return [
        *complete_module(ctx, param, incomplete),
        *sorted(here),
        *sorted(name for name in configs if name.startswith(incomplete)),
    ]


def _modules(incomplete: str) -> Iterator[str]:
    package, dot, _ = incomplete.rpartition(".")
    for path in _listed(Path(*package.split(".")) if package else Path()):
        name = path.stem if path.suffix == ".py" else path.name
        is_package = path.is_dir() and any(path.glob("*.py"))
        if name.isidentifier() and (is_package or path.suffix == ".py") and not name.endswith(_GENERATED):
            yield f"{package}{dot}{name}"


def _names(module: str) -> Iterator[str]:
    """Yield the classes of a module with a decorator, and the names that it gives results of ``bind``."""
    path = Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    try:
        statements = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # the command itself will report it
        return
    for statement in statements:
        if isinstance(statement, ast.ClassDef) and statement.decorator_list:
            yield statement.name
        elif isinstance(statement, ast.Assign) and _is_bind(statement.value):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
        elif isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
            yield statement.name  # it may build an application


def _is_bind(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "bind"


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    except OSError:
        return []
