"""Names that the source around a function binds, but that can't be read from the running program.

They are imports under ``if TYPE_CHECKING:``, names local to a function around the class, and names that the module
binds below it. Linters move imports that only annotations use under ``if TYPE_CHECKING:``. The imported modules are
usually loaded all the same (those of messages always are), so that their names can be looked up.
"""

from __future__ import annotations

import ast
import importlib.util
import linecache
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

_Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Expressions of an alias, which are evaluated again. Other expressions may do anything, such as load a model.
_PLAIN = (
    *(ast.Attribute, ast.BinOp, ast.BitOr, ast.Call, ast.Constant, ast.keyword, ast.List, ast.Load, ast.Name),
    *(ast.Subscript, ast.Tuple),
)
_PLAIN_CALLS = ("NewType", "TypeAliasType", "TypeVar")


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A name imported from a module that this process has not loaded.

    Attributes:
        name: The name in that module.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that is bound to an expression of types.

    Attributes:
        text: The expression.
    """

    text: str


class Unknown:
    """A name that is bound to a value that the source does not show, such as a parameter of a function."""


class SourceNames(NamedTuple):
    """The names around one function, by the order in which Python looks them up.

    The values are imported objects, :class:`NotLoaded`, :class:`Alias` or :class:`Unknown`.

    Attributes:
        local: Names of the functions around it, and of imports for type checkers in the body of its class.
        module: Names of its module.
    """

    local: Mapping[str, Any]
    module: Mapping[str, Any]


def names_around(function: Any) -> SourceNames:
    """Return the names that the source around a function binds. No module is imported, and no code is run.

    Args:
        function: A function written in Python; there are no names for other callables, nor without the source.

    Example:
        >>> from sdk.service import Service
        >>> names_around(Service.__post_init__).module["FileDescriptor"].__name__
        'FileDescriptor'
    """
    code = getattr(function, "__code__", None)
    tree = _parse(_source(function)) if code is not None else None
    if code is None or tree is None:
        return SourceNames({}, {})
    package = str(function.__globals__.get("__package__") or "")
    around = _path_to(tree, code.co_firstlineno, code.co_name)[:-1]
    local: dict[str, Any] = {}
    for scope in around:
        if isinstance(scope, _FUNCTIONS):
            local |= _bound_by_function(scope, package)
    if around and isinstance(around[-1], ast.ClassDef):
        local |= _merged(each for each in _bindings(around[-1].body, package) if each.for_type_checkers)
    return SourceNames(local, _merged(_bindings(tree.body, package)))


class _Binding(NamedTuple):
    name: str
    value: Any
    for_type_checkers: bool = False


def _source(function: Any) -> str:
    file = function.__code__.co_filename
    linecache.checkcache(file)
    return "".join(linecache.getlines(file, function.__globals__))


@lru_cache(maxsize=64)
def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _path_to(node: ast.AST, line: int, name: str) -> list[Any]:
    """Return the scopes from a node to the function with this name that begins at a line, outermost first."""
    first = _first_line(node)
    if first > line:
        return []
    if isinstance(node, _FUNCTIONS) and first == line and getattr(node, "name", "<lambda>") == name:
        return [node]
    for child in ast.iter_child_nodes(node):
        if found := _path_to(child, line, name):
            return [node, *found] if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) else found
    return []


def _first_line(node: ast.AST) -> int:
    """Return the first line of a node with its decorators, as code objects have it; 0 if it has none."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([int(getattr(node, "lineno", 0)), *(each.lineno for each in decorators)])


def _bound_by_function(scope: _Function, package: str) -> dict[str, Any]:
    arguments = scope.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    parameters = [each.arg for each in named if each is not None]
    parameters += [each.name for each in getattr(scope, "type_params", ())]
    body = scope.body if isinstance(scope.body, list) else []
    unknown = [_Binding(name, Unknown) for name in parameters]
    return _merged([*unknown, *_bindings(body, package)])


def _merged(bindings: Iterable[_Binding]) -> dict[str, Any]:
    """Return the value of each name: the one for type checkers, or the one that all its bindings agree on."""
    of_name: dict[str, list[_Binding]] = defaultdict(list)
    for binding in bindings:
        of_name[binding.name].append(binding)
    merged = {}
    for name, found in of_name.items():
        values = [each.value for each in found if each.for_type_checkers] or [each.value for each in found]
        merged[name] = values[0] if all(value == values[0] for value in values) else Unknown
    return merged


def _bindings(nodes: Iterable[ast.AST], package: str, for_type_checkers: bool = False) -> Iterator[_Binding]:
    for node in nodes:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            if not isinstance(node, ast.Lambda):
                yield _Binding(node.name, Unknown, for_type_checkers)
        elif isinstance(node, _COMPREHENSIONS):
            continue  # it has its own scope
        elif isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            yield from _bindings(node.body, package, True)
            yield from _bindings(node.orelse, package)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for name, value in _imported(node, package):
                yield _Binding(name, value, for_type_checkers)
        elif (alias := _alias(node)) is not None:
            yield _Binding(*alias, for_type_checkers)
        else:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield _Binding(node.id, Unknown, for_type_checkers)
            yield from _bindings(ast.iter_child_nodes(node), package, for_type_checkers)


def _alias(node: ast.AST) -> tuple[str, Alias] | None:
    """Return the name and the value of a statement such as ``Reply = shop_pb2.Reply``."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value = node.target, node.value
    elif type(node).__name__ == "TypeAlias" and not getattr(node, "type_params", True):  # since Python 3.12
        target, value = getattr(node, "name"), getattr(node, "value")  # noqa: B009  # mypy checks for Python 3.11
    else:
        return None
    return (target.id, Alias(ast.unparse(value))) if isinstance(target, ast.Name) and _is_plain(value) else None


def _is_plain(value: ast.expr) -> bool:
    calls = [node.func for node in ast.walk(value) if isinstance(node, ast.Call)]
    return all(isinstance(node, _PLAIN) for node in ast.walk(value)) and all(
        ast.unparse(call).rpartition(".")[2] in _PLAIN_CALLS for call in calls
    )


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Any]]:
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            found = sys.modules.get(alias.name if alias.asname else bound)
            yield bound, found if found is not None else NotLoaded(bound)
        return
    source = "." * statement.level + (statement.module or "")
    try:
        source = importlib.util.resolve_name(source, package)
    except ImportError:  # a relative import in a module without a package
        return
    module = sys.modules.get(source)
    for alias in statement.names:
        if alias.name == "*":
            public = getattr(module, "__all__", [name for name in vars(module or object) if name[0] != "_"])
            yield from ((name, getattr(module, name, Unknown)) for name in public if module is not None)
        else:
            missing = sys.modules.get(f"{source}.{alias.name}", NotLoaded(alias.name))
            yield alias.asname or alias.name, getattr(module, alias.name, missing)
