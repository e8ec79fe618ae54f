"""Resolves the annotations of a handler to the message, or the stream of messages, that they declare.

A name that does not exist at run time is looked up in the source (``source_names.py``). Names of modules that are not
loaded become placeholders and are compared by name; names whose value the source does not show fit everything.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import contextlib
import inspect
import types
import typing
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import typing_extensions
from google.protobuf.message import Message

from sdk._contract.source_names import Alias, NotLoaded, SourceNames, Unknown, names_around
from sdk.service import RequestStream, ResponseStream

if typing.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Ray Serve's class for request streams. Compared by name, because importing Ray takes a second.
_RAY_REQUEST_STREAM = "gRPCInputStream"
_STREAMS: tuple[type, ...] = (collections.abc.Iterator, collections.abc.AsyncIterator, collections.abc.AsyncIterable)
_STANDARD_STREAMS = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Generator,
    collections.abc.Iterable,
    collections.abc.Iterator,
    RequestStream,
)
# What RequestStream can be passed for. It is not a generator: it has neither send() nor close().
_REQUEST_STREAMS = (
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Iterable,
    collections.abc.Iterator,
    RequestStream,
)
_NOT_COLLECTIONS = (str, bytes, bytearray, memoryview, collections.abc.Mapping)
# What is written in place of a type by mistake: `any` for `Any`, a module for a message, `[Reply]` for `list[Reply]`.
NOT_TYPES = (
    *(list, tuple, dict, set, frozenset, int, float, complex, bytes, Message),
    *(types.ModuleType, types.FunctionType, types.BuiltinFunctionType),
)
_SPECIAL_VALUES = (typing.Self, typing.LiteralString, typing_extensions.Self, typing_extensions.LiteralString)
# A string may contain a string, `"'Reply'"`. The bound ends the evaluation of one that evaluates to itself.
_MAX_DEPTH = 4
# Those of `typing` (a `type` statement, PEP 695) and of typing_extensions are two classes before Python 3.14.
_ALIASES: tuple[type, ...] = tuple(
    {typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType)}
)


class Unresolved:
    """A placeholder for a name in an annotation that can't be resolved at run time.

    Attributes:
        name: The name.
        is_bound: True if the source binds it to a value that is not known, so that it may be anything.
    """

    def __init__(self, name: str, is_bound: bool = False) -> None:
        self.name = name
        self.is_bound = is_bound

    def __repr__(self) -> str:
        return self.name

    # The operators below let the expression around the name be evaluated, such as ``AsyncIterator[Unknown] | None``.
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unresolved(name, True) if self.is_bound else _well_known(name)

    def __getitem__(self, args: object) -> Any:
        stream = self.name == _RAY_REQUEST_STREAM
        return collections.abc.AsyncIterator[args] if stream else Any  # type: ignore[valid-type]  # a value, not an annotation

    def __or__(self, other: object) -> Any:
        return typing.Union[self, other]  # noqa: UP007  # a value and no annotation

    def __ror__(self, other: object) -> Any:
        return typing.Union[other, self]  # noqa: UP007  # a value and no annotation


class MemberKind(Enum):
    """Kind of one member of an annotation's union."""

    ANY = "any"
    NONE = "none"  # None
    NEVER = "never"  # the handler always raises
    VALUE = "value"
    STREAM = "stream"
    AWAITABLE = "awaitable"


@dataclass(frozen=True, slots=True)
class UnionMember:
    """One member of an annotation's union.

    Attributes:
        kind: Its kind.
        value: The class (or placeholder) of a value; the item type of a stream; the result type of an awaitable.
        is_sync: Whether a stream can be iterated with ``for``.
        is_async: Whether a stream can be iterated with ``async for``.
        is_requests: Whether a stream of requests can be passed for it.
    """

    kind: MemberKind
    value: Any = Any
    is_sync: bool = False
    is_async: bool = False
    is_requests: bool = False


class AnnotationScope:
    """Namespace in which the annotations of a function are evaluated.

    Args:
        function: The innermost function. Its type parameters, those of the owner, the body of the class, the functions
            around it, and its module are searched, in this order
            (https://docs.python.org/3/reference/executionmodel.html#annotation-scopes).
        owner: The class whose body defines it.
    """

    def __init__(self, function: Any, owner: type) -> None:
        self._names = _Namespace(function, owner)

    def resolve(self, annotation: Any) -> Any:
        """Return an annotation evaluated, with an :class:`Unresolved` for each name that can't be resolved."""
        for _ in range(_MAX_DEPTH):
            if isinstance(annotation, typing.ForwardRef):
                annotation = annotation.__forward_arg__
            if not isinstance(annotation, str):
                break
            annotation = self._evaluate(annotation)
        return annotation

    def _evaluate(self, annotation: str) -> Any:
        try:
            # As typing.get_type_hints does, but name by name, so that one unknown name does not hide the others.
            return eval(annotation, {}, self._names)
        except SyntaxError:
            return Unresolved(annotation)
        except Exception:
            with contextlib.suppress(Exception):
                tree = _Unsubscripted(self._names).visit(ast.parse(annotation, mode="eval"))
                return eval(compile(ast.fix_missing_locations(tree), "<annotation>", "eval"), {}, self._names)
            # The expression can't be evaluated, such as ``module.Missing``. The last word of its text names the type.
            words = "".join(c if c.isidentifier() or c.isdigit() else " " for c in annotation).split()
            words = [word for word in words if word != "None"]
            return Unresolved(words[-1]) if words else Any

    def members(self, annotation: Any) -> Iterator[UnionMember]:
        """Yield the members of an annotation's union. An annotation that is not a union has one member."""
        annotation = self.resolve(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Union or origin is types.UnionType:
            for member in args:
                yield from self.members(member)
        elif origin is typing.Literal:
            yield from (UnionMember(MemberKind.VALUE, type(value)) for value in args)
        elif origin is typing.Annotated:
            yield from self.members(args[0])
        elif origin is ResponseStream:
            yield UnionMember(MemberKind.STREAM, args[0], is_sync=True, is_async=True)
        elif (alias := _alias_target(annotation)) is not None:
            yield from self.members(alias)
        elif isinstance(annotation, typing.TypeVar):
            for bound in annotation.__constraints__ or (annotation.__bound__ or Any,):
                yield from self.members(bound)
        else:
            yield _member_of(annotation, origin, args)

    def batch_of(self, annotation: Any) -> Any:
        """Return the item type of a list annotation, for a method of lists behind ``@serve.batch``.

        Args:
            annotation: The annotation of the list.

        Returns:
            The annotation of one item; None when the annotation is not a list.
        """
        members = list(self.members(annotation))
        if any(member.kind is MemberKind.ANY for member in members):
            return Any
        for member in members:
            if items := collection_items(member):
                return items[0]
            if member.kind is MemberKind.STREAM and member.is_sync:
                return member.value
        return None


def collection_items(member: UnionMember) -> tuple[Any, ...]:
    """Return the item types of a value that is iterable, such as ``list[Reply]``; none for any other member.

    Example:
        >>> collection_items(UnionMember(MemberKind.VALUE, list[int]))
        (<class 'int'>,)
        >>> collection_items(UnionMember(MemberKind.VALUE, str))
        ()
    """
    head = typing.get_origin(member.value) or member.value
    if member.kind is not MemberKind.VALUE or not isinstance(head, type):
        return ()
    if not issubclass(head, collections.abc.Iterable) or issubclass(head, (*_NOT_COLLECTIONS, Message)):
        return ()
    items = tuple(each for each in typing.get_args(member.value) if each is not ...)
    # The meaning of the type parameters of a user's own class is not known.
    return items if items and head.__module__ in ("builtins", "collections", "collections.abc") else (Any,)


def allows_message(value: Any, message: type[Message]) -> bool:
    """Return whether an annotated class allows a message.

    Args:
        value: The value of a :class:`UnionMember` of kind ``VALUE``.
        message: The message class of the proto. An annotation with a base of it allows it too.
    """
    if isinstance(value, Unresolved):
        return value.name in (message.__name__, "Message", "object")
    if not isinstance(value, type):
        return False
    descriptor = getattr(value, "DESCRIPTOR", None)
    # By name too: a proto file loaded under two module names makes two distinct classes for one message.
    return issubclass(message, value) or (
        descriptor is not None and getattr(descriptor, "full_name", None) == message.DESCRIPTOR.full_name
    )


def message_name(message: type[Message]) -> str:
    """Return the name of a message class without its package, ``"Outer.Inner"``."""
    descriptor = message.DESCRIPTOR
    package = descriptor.file.package
    name: str = descriptor.full_name
    return name.removeprefix(f"{package}.") if package else name


def format_annotation(annotation: Any) -> str:
    """Return the source text of an annotation.

    Example:
        >>> from collections.abc import AsyncIterator
        >>> format_annotation(AsyncIterator[int]), format_annotation(int | None)
        ('AsyncIterator[int]', 'int | None')
    """
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return message_name(annotation) if issubclass(annotation, Message) else annotation.__qualname__
    if isinstance(annotation, (types.ModuleType, types.FunctionType, types.BuiltinFunctionType)):
        return annotation.__name__
    if isinstance(annotation, (list, tuple)):
        return "[{}]".format(", ".join(map(format_annotation, annotation)))
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return " | ".join(format_annotation(arg) for arg in args)
    if isinstance(origin, type) and args:
        return f"{origin.__name__}[{', '.join(format_annotation(arg) for arg in args)}]"
    return inspect.formatannotation(annotation)


def _member_of(annotation: Any, origin: Any, args: tuple[Any, ...]) -> UnionMember:
    head = annotation if origin is None else origin
    if head is None or head is type(None):
        return UnionMember(MemberKind.NONE)
    if head in (typing.NoReturn, typing_extensions.Never, getattr(typing, "Never", typing.NoReturn)):
        return UnionMember(MemberKind.NEVER)
    if isinstance(head, Unresolved) and head.is_bound:
        return UnionMember(MemberKind.ANY)
    if isinstance(head, Unresolved):
        if head.name == _RAY_REQUEST_STREAM:
            return UnionMember(MemberKind.STREAM, is_async=True, is_requests=True)
        return UnionMember(MemberKind.VALUE, head)
    if head in _SPECIAL_VALUES or isinstance(head, NOT_TYPES):
        return UnionMember(MemberKind.VALUE, annotation)
    # Any is a class since Python 3.11.
    if not isinstance(head, type) or head in (Any, object, Message):
        return UnionMember(MemberKind.ANY)
    # Messages first: Struct and ListValue are iterable, but they are not streams.
    if issubclass(head, Message):
        return UnionMember(MemberKind.VALUE, head)
    if head is not RequestStream and getattr(head, "_is_protocol", False):
        return UnionMember(MemberKind.ANY)
    if head is RequestStream or head is collections.abc.Iterable or issubclass(head, _STREAMS):
        # The meaning of the type parameters of a user's own class is not known.
        is_rays, is_ours = head.__name__ == _RAY_REQUEST_STREAM, head is RequestStream
        return UnionMember(
            MemberKind.STREAM,
            args[0] if args and (head in _STANDARD_STREAMS or is_rays) else Any,
            is_sync=is_ours or issubclass(head, collections.abc.Iterable),
            is_async=is_ours or issubclass(head, collections.abc.AsyncIterable),
            is_requests=is_rays or head in _REQUEST_STREAMS,
        )
    if issubclass(head, collections.abc.Awaitable):
        return UnionMember(MemberKind.AWAITABLE, args[-1] if args else Any)
    return UnionMember(MemberKind.VALUE, annotation if args else head)


def _alias_target(annotation: Any) -> Any:
    """Return the type behind ``type Alias = …`` or ``NewType``, or None."""
    if isinstance(annotation, Unresolved):
        return None
    if isinstance(annotation, _ALIASES):
        return _alias_value(annotation)
    alias = typing.get_origin(annotation)
    if isinstance(alias, _ALIASES):  # of a generic alias with arguments
        arguments = dict(zip(getattr(alias, "__type_params__", ()), typing.get_args(annotation), strict=False))
        return _substituted(_alias_value(alias), arguments)
    return getattr(annotation, "__supertype__", None)


def _alias_value(alias: Any) -> Any:
    try:
        return alias.__value__
    except NameError as error:  # a `type` statement is evaluated now; its module may import the name for type checkers
        return _well_known(str(error.name))


def _substituted(value: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return the value of a generic alias with its type parameters replaced, ``type Page[T] = AsyncIterator[T]``."""
    if isinstance(value, typing.TypeVar):
        return arguments.get(value, value)
    parameters = getattr(value, "__parameters__", ())
    return value[tuple(arguments.get(each, each) for each in parameters)] if parameters else value


def _well_known(name: str) -> Any:
    # Linters move the imports of typing and collections.abc under TYPE_CHECKING, so these names need no import here.
    ours = {"RequestStream": RequestStream, "ResponseStream": ResponseStream}
    return ours.get(name) or getattr(typing, name, None) or Unresolved(name)


def closure_values(cells: Iterator[tuple[str, types.CellType]]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of those variables of a closure that have a value."""
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:  # unbound: the class that is being defined
            continue


class _Unsubscripted(ast.NodeTransformer):
    """Drops the arguments of classes that only type checkers give arguments, ``map[Reply]``."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        try:
            eval(ast.unparse(node), {}, self._names)
        except TypeError:
            return node.value
        return node


class _Namespace(dict[str, Any]):
    """Looks up each name of an annotation."""

    def __init__(self, function: Any, owner: type) -> None:
        super().__init__()
        self._function = function
        code, qualified = getattr(function, "__code__", None), str(getattr(function, "__qualname__", ""))
        cells = zip(getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False)
        # A method may have the name of a message; no annotation means the method.
        body = {name: value for name, value in vars(owner).items() if not hasattr(type(value), "__get__")}
        self._is_local = "<locals>" in qualified
        self._inner: tuple[Mapping[str, Any], ...] = (
            {p.__name__: p for each in (owner, function) for p in getattr(each, "__type_params__", ())},
            body if qualified.rpartition(".")[0] == owner.__qualname__ else {},
            dict(closure_values(cells)),
        )
        # The class is searched again, as `typing.get_type_hints` does. It has no name yet while it is being defined.
        own_name = {owner.__name__: owner}
        self._outer = (getattr(function, "__globals__", {}), vars(builtins), vars(owner), own_name)

    @cached_property
    def _source(self) -> SourceNames:
        return names_around(self._function)

    def __missing__(self, name: str) -> Any:
        for namespace in self._inner:
            if name in namespace:
                return namespace[name]
        if self._is_local and name in self._source.local:
            return self._value(self._source.local[name], name)
        for namespace in self._outer:
            if name in namespace:
                return namespace[name]
        for namespace in self._source:
            if name in namespace:
                return self._value(namespace[name], name)
        return _well_known(name)

    def _value(self, found: Any, name: str) -> Any:
        if isinstance(found, Alias):
            # Evaluated here because it may be a part of a larger expression.
            value = eval(found.text, {}, self)
            return eval(value, {}, self) if isinstance(value, str) else value
        if isinstance(found, NotLoaded):
            return _well_known(found.name)
        return Unresolved(name, is_bound=True) if found is Unknown else found
