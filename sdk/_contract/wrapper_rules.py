"""The rule for decorators whose result can't be called as an RPC, although the function in them fits.

Only what fails at every call is a problem. A decorator that is not known to fail may do what it likes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from sdk._contract.effective_signature import annotations_of
from sdk._contract.signature_rules import proto_says
from sdk._contract.wrapper_uses import Use, WrapperUses, uses_of

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


_REMEDIES = {
    "is an async generator": "in the decorator, iterate over it with `async for` and `yield` each message",
    "is a generator": "in the decorator, iterate over it with `for` and `yield` each message",
    "is a coroutine function": "in the decorator, write `async def` and `await` it",
    "returns a message": "write it with `async def`, or call it without `await` in the decorator",
}
# What each kind of function can't be used for.
_WRONG_USES = {
    "is an async generator": (Use.AWAIT, Use.FOR, Use.RUN),
    "is a generator": (Use.AWAIT, Use.ASYNC_FOR, Use.RUN),
    "is a coroutine function": (Use.ASYNC_FOR, Use.FOR, Use.RETURN, Use.RUN),
    "returns a message": (Use.AWAIT, Use.ASYNC_FOR, Use.RUN),
}


def check_wrappers(rpc: RequiredRpc, implementation: Implementation) -> Iterator[Problem]:
    """Yield the problem of the first decorator with which every call of a method fails.

    Args:
        rpc: The RPC.
        implementation: The method.
    """
    links = implementation.links
    for link, inner in zip(links, (*links[1:], None), strict=True):
        uses = uses_of(link, inner) if isinstance(link, types.FunctionType) and inner is not None else WrapperUses()
        found = _fault(rpc, link) or _wrong_use(rpc, link, inner, uses)
        if found is not None:
            fault, remedy = found
            yield rpc.problem("wrapper", f"{fault}; {proto_says(rpc.method)}", remedy, implementation)
            return
        if isinstance(link, types.FunctionType) and not uses.passes_all:
            return  # its body decides what it passes to the next one


def find_unbound(rpc: RequiredRpc, implementation: Implementation) -> Problem | None:
    """Return the problem of an object that replaces a method of the class, but does not get the instance, or None.

    Args:
        rpc: The RPC.
        implementation: The attribute.
    """
    link, owner = implementation.attribute, implementation.owner
    kind = type(link)
    if isinstance(link, type) or hasattr(kind, "__get__") or hasattr(kind, "__set_name__"):
        return None
    is_partial = isinstance(link, functools.partial)
    if is_partial and link.args:
        return None  # perhaps the instance
    held = [link.func] if is_partial else getattr(link, "__dict__", {}).values()
    for each in held:
        if (
            isinstance(each, types.FunctionType)
            and each.__qualname__.rpartition(".")[0] == owner.__qualname__
            and each.__code__.co_varnames[:1] == ("self",)
        ):
            by_hand = f"write `{kind.__name__}` as a function, or give it a method `__get__` that binds the instance"
            fault = f"`{kind.__name__}` has no `__get__`, so `{each.__name__}` in it does not get the instance"
            remedy = "write `functools.partialmethod`" if is_partial else by_hand
            return rpc.problem("wrapper", f"{fault}; {proto_says(rpc.method)}", remedy, implementation)
    return None


def _fault(rpc: RequiredRpc, link: Any) -> tuple[str, str] | None:
    """Return the fault of a decorator of the standard library, and the remedy, or None."""
    name, cardinality = rpc.name, rpc.method.cardinality
    if isinstance(link, _CACHED) and not cardinality.client_streaming:
        # https://protobuf.dev/reference/python/python-generated/: messages are mutable, so they have no hash.
        return (
            f"`functools.cache` or `lru_cache` around `{name}` needs a request with a hash, and a message has none,"
            " so every call fails",
            "remove it, and cache a function of the fields that matter",
        )
    decorator = _CONTEXT_MANAGERS.get(link.__code__) if isinstance(link, types.FunctionType) else None
    if decorator is None:
        return None
    return (
        f"`contextlib.{decorator}` around `{name}` returns a context manager in place of"
        f" a {'stream' if cardinality.server_streaming else 'message'}",
        f"remove it, and enter context managers inside `{name}`",
    )


def _wrong_use(rpc: RequiredRpc, link: Any, inner: Any, uses: WrapperUses) -> tuple[str, str] | None:
    """Return what fails in the source of a wrapper, and the remedy, or None."""
    kind = _kind_of(inner, rpc) if uses.uses else None
    in_thread = inspect.isgeneratorfunction(link)
    wrong = [each for each in uses.uses if kind is not None and each in _WRONG_USES[kind]]
    use = next((each for each in wrong if not (each is Use.RUN and in_thread)), None)
    if use is None or kind is None:
        return None
    cannot = {Use.AWAIT: ", which can't be awaited", Use.RUN: ", which is called in one already"}.get(use, "")
    remedy = "in the decorator, write `return await`" if use is Use.RETURN else _REMEDIES[kind]
    return (
        f"`{link.__code__.co_qualname}` around `{rpc.name}` {use.value}, but `{rpc.name}` {kind}{cannot}",
        remedy,
    )


def _kind_of(function: Any, rpc: RequiredRpc) -> str | None:
    if inspect.isasyncgenfunction(function):
        return "is an async generator"
    if inspect.iscoroutinefunction(function):
        return "is a coroutine function"
    if inspect.isgeneratorfunction(function):
        return "is a generator"
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        return None  # it may return an awaitable
    returns = (annotations_of(function) or {}).get("return")
    name = returns if isinstance(returns, str) else getattr(returns, "__name__", "")
    return "returns a message" if name.rpartition(".")[2] == rpc.method.response.__name__ else None
