"""Reads the annotations of a handler: what one message or one stream of messages its author meant.

An annotation is looked at with what can be found at run time. Names that only a type checker sees (imported under
``TYPE_CHECKING``, defined in a function) stay as placeholders and are compared by their text.
"""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import types
import typing
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typing_extensions
from google.protobuf.message import Message

from sdk._contract.checked_imports import NotLoaded, checked_names
from sdk.service import RequestStream

if typing.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Ray's own class for request streams; by name, because Ray takes a second to import.
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
_NO_BATCHES = (str, bytes, collections.abc.Mapping)
# Text may stand in text, `"'Reply'"`; what evaluates to itself must not go on for ever.
_MAX_DEPTH = 4
_MISSING = object()


class Unresolved:
    """A name in an annotation that can't be found at run time."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    # The rest lets an expression around the name be evaluated: ``AsyncIterator[Unknown] | None`` keeps its form.
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _well_known(name)

    def __getitem__(self, args: object) -> Any:
        stream = self.name == _RAY_REQUEST_STREAM
        return collections.abc.AsyncIterator[args] if stream else Any  # type: ignore[valid-type]  # a value, read as such

    def __or__(self, other: object) -> Any:
        return typing.Union[self, other]  # noqa: UP007  # a value and no annotation

    def __ror__(self, other: object) -> Any:
        return typing.Union[other, self]  # noqa: UP007  # a value and no annotation


class Form(Enum):
    """What an annotation stands for."""

    ANYTHING = "anything"
    NOTHING = "nothing"  # None
    NEVER = "never"  # the handler always raises
    VALUE = "value"
    STREAM = "stream"
    AWAITABLE = "awaitable"


@dataclass(frozen=True, slots=True)
class Shape:
    """One member of an annotation's union.

    Attributes:
        form: What it stands for.
        value: The class (or placeholder) of a value; what a stream or an awaitable is of.
        sync: Whether a stream can be iterated with ``for``.
        is_async: Whether a stream can be iterated with ``async for``.
    """

    form: Form
    value: Any = Any
    sync: bool = False
    is_async: bool = False


class Scope:
    """The names that an annotation of a function may use.

    Args:
        function: The innermost function, whose module and closure hold the names.
        owner: The class whose body defines it; its names come last, as for ``typing.get_type_hints``.
    """

    def __init__(self, function: Any, owner: type) -> None:
        code = getattr(function, "__code__", None)
        cells = zip(getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False)
        self._places: tuple[Mapping[str, Any], ...] = (
            {p.__name__: p for p in getattr(function, "__type_params__", ())},
            dict(_filled(cells)),
            getattr(function, "__globals__", {}),
            vars(builtins),
            vars(owner),
        )
        self._module = str(getattr(function, "__module__", ""))

    def resolve(self, annotation: Any) -> Any:
        """Return what an annotation says, with placeholders for what can't be found."""
        for _ in range(_MAX_DEPTH):
            if isinstance(annotation, typing.ForwardRef):
                annotation = annotation.__forward_arg__
            if not isinstance(annotation, str):
                break
            annotation = self._evaluate(annotation)
        return annotation

    def _evaluate(self, annotation: str) -> Any:
        try:
            # As typing.get_type_hints does, but name by name: one unknown name must not hide the others.
            return eval(annotation, {}, _Names(self._places, self._module))
        except Exception:
            # ``module.Missing`` and the like: only the text is left. Its last word names the type.
            words = "".join(c if c.isidentifier() or c.isdigit() else " " for c in annotation).split()
            words = [word for word in words if word != "None"]
            return Unresolved(words[-1]) if words else Any

    def shapes(self, annotation: Any) -> Iterator[Shape]:
        """Yield what an annotation allows: one shape for each member of its union."""
        annotation = self.resolve(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Union or origin is types.UnionType:
            for member in args:
                yield from self.shapes(member)
        elif origin is typing.Annotated:
            yield from self.shapes(args[0])
        elif (alias := _aliased(annotation)) is not None:
            yield from self.shapes(alias)
        elif isinstance(annotation, typing.TypeVar):
            for bound in annotation.__constraints__ or (annotation.__bound__ or Any,):
                yield from self.shapes(bound)
        else:
            yield _shape(annotation, origin, args)

    def batch_of(self, annotation: Any) -> Any:
        """Return what a list is of, for a method that ``@serve.batch`` turns into one of single messages.

        Args:
            annotation: The annotation of the list.

        Returns:
            The annotation of one item; None when the annotation is of no list.
        """
        shapes = list(self.shapes(annotation))
        if any(shape.form is Form.ANYTHING for shape in shapes):
            return Any
        for shape in shapes:
            origin = typing.get_origin(shape.value) or shape.value
            is_class = shape.form is Form.VALUE and isinstance(origin, type)
            if is_class and issubclass(origin, collections.abc.Collection) and not issubclass(origin, _NO_BATCHES):
                return (*typing.get_args(shape.value), Any)[0]
            if shape.form is Form.STREAM and shape.sync:
                return shape.value
        return None


def fits(value: Any, message: type[Message]) -> bool:
    """Return whether a message of class ``message`` is what an annotated value says.

    Args:
        value: The value of a :class:`Shape` whose form is ``VALUE``.
        message: The class that the proto says. Any base of it fits too.
    """
    if isinstance(value, Unresolved):
        return value.name in (message.__name__, "Message", "object")
    if not isinstance(value, type):
        return False
    descriptor = getattr(value, "DESCRIPTOR", None)
    # By name too: the same proto file, loaded under two module names, makes equal classes that are not the same.
    return issubclass(message, value) or (
        descriptor is not None and getattr(descriptor, "full_name", None) == message.DESCRIPTOR.full_name
    )


def message_name(message: type[Message]) -> str:
    """Return the name of a message class without its package, ``"Outer.Inner"``."""
    descriptor = message.DESCRIPTOR
    package = descriptor.file.package
    name: str = descriptor.full_name
    return name.removeprefix(f"{package}.") if package else name


def spell(annotation: Any) -> str:
    """Return an annotation as its author would write it."""
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return message_name(annotation) if issubclass(annotation, Message) else annotation.__qualname__
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return " | ".join(spell(arg) for arg in args)
    if isinstance(origin, type) and args:
        return f"{origin.__name__}[{', '.join(spell(arg) for arg in args)}]"
    return inspect.formatannotation(annotation)


def _shape(annotation: Any, origin: Any, args: tuple[Any, ...]) -> Shape:
    head = annotation if origin is None else origin
    if head is None or head is type(None):
        return Shape(Form.NOTHING)
    if head in (typing.NoReturn, typing_extensions.Never, getattr(typing, "Never", typing.NoReturn)):
        return Shape(Form.NEVER)
    if isinstance(head, Unresolved):
        stream = head.name == _RAY_REQUEST_STREAM
        return Shape(Form.STREAM, is_async=True) if stream else Shape(Form.VALUE, head)
    # Any is a class since Python 3.11.
    if not isinstance(head, type) or head in (Any, object, Message):
        return Shape(Form.ANYTHING)
    # Messages first: Struct and ListValue are iterable, and they are no streams.
    if issubclass(head, Message):
        return Shape(Form.VALUE, head)
    if head is RequestStream or head is collections.abc.Iterable or issubclass(head, _STREAMS):
        # What the parameters of a class of the user's own mean is not known.
        of = args[0] if args and (head in _STANDARD_STREAMS or head.__name__ == _RAY_REQUEST_STREAM) else Any
        both = head is RequestStream
        sync, is_async = issubclass(head, collections.abc.Iterable), issubclass(head, collections.abc.AsyncIterable)
        return Shape(Form.STREAM, of, sync=both or sync, is_async=both or is_async)
    if issubclass(head, collections.abc.Awaitable):
        return Shape(Form.AWAITABLE, args[-1] if args else Any)
    if getattr(head, "_is_protocol", False):
        return Shape(Form.ANYTHING)
    return Shape(Form.VALUE, annotation if args else head)


def _aliased(annotation: Any) -> Any:
    """Return what ``type Alias = …`` or ``NewType`` stands for, or None."""
    if isinstance(annotation, Unresolved):
        return None
    if isinstance(annotation, typing_extensions.TypeAliasType):
        return annotation.__value__
    return getattr(annotation, "__supertype__", None)


def _well_known(name: str) -> Any:
    # Linters move the imports of typing and collections.abc under TYPE_CHECKING, so those names are found without.
    if name == RequestStream.__name__:
        return RequestStream
    return getattr(typing, name, None) or Unresolved(name)


def _filled(cells: Iterator[tuple[str, types.CellType]]) -> Iterator[tuple[str, Any]]:
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet: the class that is being defined
            continue


class _Names(dict[str, Any]):
    """Finds each name of an expression in the first of some places that has it."""

    def __init__(self, places: tuple[Mapping[str, Any], ...], module: str) -> None:
        super().__init__()
        self._places = places
        self._module = module

    def __missing__(self, name: str) -> Any:
        for place in self._places:
            if name in place:
                return place[name]
        found = checked_names(self._module).get(name, _MISSING)
        if found is _MISSING:
            return _well_known(name)
        if isinstance(found, typing.ForwardRef):
            # An alias, perhaps of a text. It is evaluated here, for it may be a part of an expression.
            value = eval(found.__forward_arg__, {}, self)
            return eval(value, {}, self) if isinstance(value, str) else value
        return _well_known(found.name) if isinstance(found, NotLoaded) else found
