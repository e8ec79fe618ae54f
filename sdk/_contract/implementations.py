"""The attribute of a class that implements an RPC: its signature, and whether it is async or a generator.

Attributes are read from the class, without an instance: a class is checked when it is defined, and its constructor may
load a model.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sdk._contract.annotations import AnnotationScope
from sdk._contract.effective_signature import annotations_of, signature_of, takes_context


def _empty() -> None: ...
async def _empty_coroutine() -> None: ...  # fmt: skip


def _documented() -> None:
    """Do nothing."""


async def _documented_coroutine() -> None:
    """Do nothing."""


# The byte code of functions without statements.
_EMPTY = {each.__code__.co_code for each in (_empty, _empty_coroutine, _documented, _documented_coroutine)}


@dataclass(frozen=True)
class Implementation:
    """The attribute of a class that implements an RPC.

    Attributes:
        owner: The class of the MRO that defines it.
        attribute: The unbound attribute: a function, a ``staticmethod``, a property…
    """

    owner: type
    attribute: Any

    @cached_property
    def links(self) -> tuple[Any, ...]:
        """The attribute and the callables that it wraps, the outermost first."""
        return tuple(_unwrapped(self.attribute))

    @property
    def function(self) -> Any:
        """The innermost callable: the one that its author wrote."""
        return self.links[-1] if self.links else self.attribute

    @property
    def is_method(self) -> bool:
        """True when an instance has a method under this name."""
        attribute, kind = self.attribute, type(self.attribute)
        if isinstance(attribute, (type, property, functools.cached_property)):
            return False
        # A descriptor that only binds, with __get__ and no __set__: a classmethod, or a class that the user wrote.
        return callable(attribute) or (hasattr(kind, "__get__") and not hasattr(kind, "__set__"))

    @property
    def is_batched(self) -> bool:
        """True when ``@serve.batch`` turns a method of lists into a method of single messages.

        See https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html.
        """
        return hasattr(self.attribute, "set_max_batch_size")

    @cached_property
    def kind(self) -> tuple[bool, bool]:
        """Two flags: it is async, and it is a generator function."""
        return _kind(self.links)

    @cached_property
    def annotated_kind(self) -> tuple[bool, bool]:
        """As ``kind``, for the function whose annotations the method has: a wrapper has those of what it wraps."""
        links = self.links
        while len(links) > 1 and (
            not isinstance(links[0], types.FunctionType) or annotations_of(links[0]) == annotations_of(links[1])
        ):
            links = links[1:]
        return _kind(links)

    @property
    def is_declared_only(self) -> bool:
        """True for what only declares the RPC: a method of generated code, or an empty one of a protocol."""
        if is_generated(self.owner) or is_servicer(self.owner):
            return True
        code = getattr(self.attribute, "__code__", None)
        return getattr(self.owner, "_is_protocol", False) and code is not None and code.co_code in _EMPTY

    @cached_property
    def signature(self) -> inspect.Signature | None:
        """The parameters of the bound method; None when Python does not know them (a method written in C).

        Raises:
            ValueError: The method takes no positional parameter for ``self``.
        """
        bound = self._bound()
        return signature_of(bound) if callable(bound) else None

    @property
    def scope(self) -> AnnotationScope:
        """The names that its annotations may use."""
        return AnnotationScope(self.function, self.owner)

    @property
    def takes_context(self) -> bool:
        """True when it has a parameter named ``grpc_context``, or forwards one."""
        bound = self._bound()
        return callable(bound) and takes_context(bound)

    def _bound(self) -> Any:
        # Any object can replace the instance: binding uses the function only.
        attribute, instance = self.attribute, object()
        if isinstance(attribute, functools.singledispatchmethod):
            attribute = attribute.func
        if isinstance(attribute, staticmethod):
            return attribute.__func__
        if isinstance(attribute, classmethod):
            return types.MethodType(attribute.__func__, self.owner)
        if isinstance(attribute, functools.partialmethod):
            return attribute.__get__(instance, self.owner)
        if isinstance(attribute, functools.partial) and sys.version_info < (3, 14):
            return attribute
        if not callable(attribute):
            return None  # the result of a custom descriptor is not known
        # An object without __get__ (one with __call__) is called without the instance.
        return types.MethodType(attribute, instance) if hasattr(type(attribute), "__get__") else attribute


def handler_kind(handler: Any) -> tuple[bool, bool]:
    """Return two flags for a bound method: it is async, and it is a generator function.

    A plain function that wraps an async one (``functools.wraps``) returns its coroutine, so it counts as async.

    Example:
        >>> async def stream(request):
        ...     yield request
        >>> handler_kind(stream), handler_kind(lambda request: request)
        ((True, True), (False, False))
    """
    return _kind(_unwrapped(handler))


def generated_bases(cls: type) -> tuple[type, ...]:
    """Return the generated service bases that a class inherits from, in the order of its MRO."""
    return tuple(base for base in cls.__mro__ if is_generated(base))


def is_generated(cls: type) -> bool:
    """Return whether ``sdk codegen`` generated this class itself, and not a base of it."""
    return "__grpc_shim__" in vars(cls)


def is_servicer(cls: type) -> bool:
    """Return whether grpc's own plugin for protoc generated this class, as a base of servicers."""
    return cls.__module__.endswith("_pb2_grpc") and cls.__name__.endswith("Servicer")


def find_implementation(cls: type, name: str) -> Implementation | None:
    """Return the unbound attribute that Python finds under a name in a class, or None."""
    for owner in cls.__mro__:
        if name in vars(owner):
            return Implementation(owner, vars(owner)[name])
    return None


def _kind(links: Iterable[Any]) -> tuple[bool, bool]:
    # The outermost callable that is not a plain function decides.
    for link in links:
        if inspect.isasyncgenfunction(link):
            return True, True
        if inspect.isgeneratorfunction(link):
            return False, True
        if inspect.iscoroutinefunction(link):
            return True, False
    return False, False


def _unwrapped(link: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        if isinstance(link, (staticmethod, classmethod)):
            link = link.__func__
        elif isinstance(link, (functools.partial, functools.partialmethod, functools.singledispatchmethod)):
            link = link.func
        elif (wrapped := getattr(link, "__wrapped__", None)) is not None:
            link = wrapped
        elif callable(link) and not isinstance(link, (type, types.FunctionType, types.BuiltinFunctionType)):
            # An object with __call__. The __call__ of a built-in type is a slot wrapper without information.
            call = getattr(type(link), "__call__", None)  # noqa: B004  # the function itself is needed
            link = call if isinstance(call, types.FunctionType) else None
        else:
            link = None
