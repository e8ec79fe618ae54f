"""The source of a wrapper: what it does with the result of the function that it wraps, whenever it is called.

Only what no condition guards is read: a wrapper for several kinds of functions asks first what it got.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sdk._contract.annotations import closure_values

_ITERATING = ("list", "tuple", "iter", "enumerate", "sorted")
_RUNNING = ("asyncio.run", "run_until_complete")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
# Their parts may not run.
_GUARDED = (ast.If, ast.IfExp, ast.Match, ast.BoolOp, ast.While, *_SCOPES)


class Use(Enum):
    """One use of the result, in the words of a message."""

    AWAIT = "awaits it"
    ASYNC_FOR = "iterates over it with `async for`"
    FOR = "iterates over it without `async`"
    RETURN = "returns it without `await`"
    RUN = "runs it in a separate event loop"


@dataclass(frozen=True, slots=True)
class WrapperUses:
    """The uses of a wrapped function in its wrapper.

    Attributes:
        uses: What it does with the result.
        passes_all: True if it passes all its positional arguments, ``*args``.
    """

    uses: tuple[Use, ...] = ()
    passes_all: bool = False


def uses_of(wrapper: types.FunctionType, wrapped: Any) -> WrapperUses:
    """Return what a wrapper does with the function that it wraps; nothing if its source does not show it.

    Args:
        wrapper: The wrapper, as a decorator returns it.
        wrapped: The function in it.

    Example:
        >>> import contextlib, functools
        >>> @contextlib.asynccontextmanager
        ... async def session():
        ...     yield
        >>> def handler(request): ...
        >>> uses_of(session()(handler), handler)
        WrapperUses(uses=(<Use.AWAIT: 'awaits it'>,), passes_all=True)
    """
    cells = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True)
    names = {name for name, value in closure_values(cells) if value is wrapped}
    if not names:
        return WrapperUses()
    try:
        tree = ast.parse(textwrap.dedent("".join(inspect.getsourcelines(wrapper.__code__)[0])))
    except (OSError, SyntaxError):  # without its source, or in a source that is not a whole statement
        return WrapperUses()
    definition = next(
        (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))), None
    )
    return WrapperUses() if definition is None else _uses_in(definition, names)


def _uses_in(definition: ast.FunctionDef | ast.AsyncFunctionDef, names: set[str]) -> WrapperUses:
    nodes = list(_always(definition.body))
    stored = Counter(
        node.id for node in ast.walk(definition) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    calls = [node for node in nodes if isinstance(node, ast.Call) and _name(node.func) in names]
    results = {
        node.targets[0].id
        for node in nodes
        if isinstance(node, ast.Assign) and node.value in calls and isinstance(node.targets[0], ast.Name)
        if len(node.targets) == 1 and stored[node.targets[0].id] == 1
    }
    returns_values = isinstance(definition, ast.AsyncFunctionDef)
    uses = [
        use
        for node in nodes
        for use, value in _used(node)
        if (value in calls or _name(value) in results) and (use is not Use.RETURN or returns_values)
    ]
    rest = definition.args.vararg.arg if definition.args.vararg is not None else None
    passes_all = any(
        isinstance(each, ast.Starred) and _name(each.value) == rest for call in calls for each in call.args
    )
    return WrapperUses(tuple(uses), passes_all)


def _used(node: ast.AST) -> Iterator[tuple[Use, ast.expr]]:
    """Yield what a node does with a value, and the value."""
    if isinstance(node, ast.Await):
        yield Use.AWAIT, node.value
    elif isinstance(node, ast.AsyncFor):
        yield Use.ASYNC_FOR, node.iter
    elif isinstance(node, ast.For):
        yield Use.FOR, node.iter
    elif isinstance(node, ast.comprehension):
        yield Use.ASYNC_FOR if node.is_async else Use.FOR, node.iter
    elif isinstance(node, ast.YieldFrom):
        yield Use.FOR, node.value
    elif isinstance(node, ast.Return) and node.value is not None:
        yield Use.RETURN, node.value
    elif isinstance(node, ast.Call) and node.args:
        called = ast.unparse(node.func)
        if called in _ITERATING:
            yield Use.FOR, node.args[0]
        elif called in _RUNNING or called.rpartition(".")[2] in _RUNNING:
            yield Use.RUN, node.args[0]


def _always(nodes: Iterable[ast.AST]) -> Generator[ast.AST, None, bool]:
    """Yield the nodes that run in each call; none after a condition with a ``return``, and return True then."""
    for node in nodes:
        if isinstance(node, _GUARDED):
            if isinstance(node, ast.stmt) and any(isinstance(each, ast.Return) for each in ast.walk(node)):
                return True
            continue
        yield node
        parts = [*node.body, *node.finalbody] if isinstance(node, ast.Try) else ast.iter_child_nodes(node)
        if (yield from _always(parts)):
            return True
    return False


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
