"""How a class implements an RPC: the attribute that answers it, what that attribute takes, and of which kind it is.

Seen without an instance: a class is checked when it is defined, and its constructor may load a model.
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

from sdk._contract.annotations import Scope
from sdk._contract.wrappers import signature_of, takes_context


@dataclass(frozen=True)
class Implementation:
    """The attribute of a class that answers an RPC.

    Attributes:
        owner: The class of the MRO that defines it.
        attribute: What that class holds: a function, a ``staticmethod``, a property…
    """

    owner: type
    attribute: Any

    @cached_property
    def links(self) -> tuple[Any, ...]:
        """The attribute and the callables that it wraps, outermost first."""
        return tuple(_unwrapped(self.attribute))

    @property
    def function(self) -> Any:
        """The innermost callable: the one that its author wrote."""
        return self.links[-1] if self.links else self.attribute

    @property
    def is_method(self) -> bool:
        """Whether a call on an instance reaches a function."""
        attribute, kind = self.attribute, type(self.attribute)
        if isinstance(attribute, (type, property, functools.cached_property)):
            return False
        # What gives the instance something, and takes nothing from it: a classmethod, or a descriptor of one's own.
        return callable(attribute) or (hasattr(kind, "__get__") and not hasattr(kind, "__set__"))

    @property
    def is_batched(self) -> bool:
        """Whether ``@serve.batch`` turns it from a method of lists into one of single messages."""
        return hasattr(self.attribute, "set_max_batch_size")

    @cached_property
    def kind(self) -> tuple[bool, bool]:
        """Whether it is async, and whether it is a generator function."""
        return _kind(self.links)

    @cached_property
    def signature(self) -> inspect.Signature | None:
        """What a call on an instance takes; None when Python does not know it (a method written in C).

        Raises:
            ValueError: A method that has no room for ``self``.
        """
        bound = self._bound()
        return signature_of(bound) if callable(bound) else None

    @property
    def scope(self) -> Scope:
        """The names that its annotations may use."""
        return Scope(self.function, self.owner)

    @property
    def takes_context(self) -> bool:
        """Whether it has a parameter named ``grpc_context``, or passes one on."""
        bound = self._bound()
        return callable(bound) and takes_context(bound)

    def _bound(self) -> Any:
        # A stand-in for the instance: binding looks at nothing but the function.
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
            return None  # what a descriptor gives is not known
        # What has no __get__ (an object with __call__) is called without the instance.
        return types.MethodType(attribute, instance) if hasattr(type(attribute), "__get__") else attribute


def kind_of(handler: Any) -> tuple[bool, bool]:
    """Return whether a bound method is async, and whether it is a generator function.

    A plain function around an async one (``functools.wraps``) returns what that one returns, so it is as async.
    """
    return _kind(_unwrapped(handler))


def generated_bases(cls: type) -> tuple[type, ...]:
    """Return the generated service bases that a class inherits from, in the order of its MRO."""
    return tuple(base for base in cls.__mro__ if is_generated(base))


def is_generated(cls: type) -> bool:
    """Return whether this very class was written by ``sdk codegen``."""
    return "__grpc_shim__" in vars(cls)


def find(cls: type, name: str) -> Implementation | None:
    """Return the attribute that Python finds under a name in a class, unbound; None when there is none."""
    for owner in cls.__mro__:
        if name in vars(owner):
            return Implementation(owner, vars(owner)[name])
    return None


def _kind(links: Iterable[Any]) -> tuple[bool, bool]:
    # The outermost link that is not plain decides.
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
            # An object with __call__; a method's own __call__ is a slot wrapper, which says nothing.
            call = getattr(type(link), "__call__", None)  # noqa: B004  # the function itself is needed
            link = call if isinstance(call, types.FunctionType) else None
        else:
            link = None
