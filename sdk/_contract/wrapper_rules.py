"""The rule for decorators whose result can't be called as an RPC, although the function in them fits.

Only what fails at every call is a problem. A decorator that is not known to fail may do what it likes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import textwrap
import types
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from sdk._contract.signature_rules import proto_says

if TYPE_CHECKING:
    from sdk._contract.implementations import Implementation
    from sdk._contract.signature_rules import RequiredRpc
    from sdk.errors import Problem


async def _no_messages() -> AsyncIterator[None]:
    return
    yield


# `functools.cache` and `functools.lru_cache` return objects of one class.
_CACHED: type = type(functools.lru_cache(lambda: None))
# All functions that one of these decorators returns share one code object.
_CONTEXT_MANAGERS: dict[types.CodeType, str] = {
    contextlib.contextmanager(lambda: iter(())).__code__: "contextmanager",
    contextlib.asynccontextmanager(_no_messages).__code__: "asynccontextmanager",
}


def check_wrappers(rpc: RequiredRpc, implementation: Implementation) -> Iterator[Problem]:
    """Yield the problem of the first decorator with which every call of a method fails.

    Args:
        rpc: The RPC.
        implementation: The method.
    """
    links = implementation.links
    for link, inner in zip(links, (*links[1:], None), strict=True):
        found = _fault(rpc, link, inner)
        if found is not None:
            fault, remedy = found
            yield rpc.problem("wrapper", f"{fault}; {proto_says(rpc.method)}", remedy, implementation)
            return
        if isinstance(link, types.FunctionType):
            return  # its body decides what it passes to the next one, and what it does with the result


def _fault(rpc: RequiredRpc, link: Any, inner: Any) -> tuple[str, str] | None:
    """Return what fails in one link of the chain, and the remedy, or None."""
    name, cardinality = rpc.name, rpc.method.cardinality
    if isinstance(link, _CACHED) and not cardinality.client_streaming:
        # https://protobuf.dev/reference/python/python-generated/: messages are mutable, so they have no hash.
        return (
            f"`functools.cache` or `lru_cache` around `{name}` needs a request with a hash, and a message has none,"
            " so every call fails",
            "remove it, and cache a function of the fields that matter",
        )
    if not isinstance(link, types.FunctionType) or not cardinality.server_streaming:
        return None
    decorator = _CONTEXT_MANAGERS.get(link.__code__)
    if decorator is not None:
        return (
            f"`contextlib.{decorator}` around `{name}` returns a context manager in place of a stream",
            f"remove it, and enter context managers inside `{name}`",
        )
    if inspect.isasyncgenfunction(inner) and inspect.iscoroutinefunction(link) and _awaits_call_of(link, inner):
        return (
            f"`{link.__code__.co_qualname}` around `{name}` awaits it, but `{name}` is an async generator, which"
            " can't be awaited",
            "in the decorator, iterate over it with `async for` and `yield` each message",
        )
    return None


def _awaits_call_of(wrapper: types.FunctionType, wrapped: Any) -> bool:
    """Return whether the source of a wrapper has ``await function(…)``, where ``function`` is the wrapped one."""
    cells = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True)
    names = {name for name, cell in cells if _content(cell) is wrapped}
    if not names:
        return False
    try:
        tree = ast.parse(textwrap.dedent("".join(inspect.getsourcelines(wrapper.__code__)[0])))
    except (OSError, SyntaxError):  # without its source, or in a source that is not a whole statement
        return False
    return any(
        isinstance(node, ast.Await)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in names
        for node in ast.walk(tree)
    )


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None
