"""Whether one method fits its RPC: its parameters, and what its annotations say of the request and the response."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import Descriptor

from sdk._contract import locations as places
from sdk._contract.annotations import Form, Scope, Shape, Unresolved, fits, message_name, spell
from sdk._contract.wrappers import CONTEXT_PARAMETER
from sdk.errors import Problem

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk._contract.methods import Implementation
    from sdk.service import Method, Service

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC that a class is to implement."""

    cls: type
    service: Service
    method: Method

    @property
    def name(self) -> str:
        """Name of the Python method that implements it."""
        return self.method.python_name

    def problem(self, rule: str, message: str, remedy: str, implementation: Implementation | None = None) -> Problem:
        """Return a problem with this RPC.

        Args:
            rule: Name of the rule.
            message: What is wrong.
            remedy: What to do.
            implementation: The attribute that it is about; its place is given instead of the class's.
        """
        code = places.of_function(implementation.function) if implementation is not None else ""
        return Problem(
            rule,
            f"{self.cls.__name__}.{self.method.name}",
            message,
            remedy,
            code_location=code or places.of_class(self.cls),
            proto_location=places.of_proto(self.service, self.method.line),
        )


def rpc_text(method: Method, *, full_names: bool = False) -> str:
    """Return an RPC as its proto spells it, ``"SayHello(HelloRequest) returns (HelloReply)"``.

    Args:
        method: The RPC.
        full_names: Name the messages with their packages.
    """
    request, response = (
        message.DESCRIPTOR.full_name if full_names else message_name(message)
        for message in (method.request, method.response)
    )
    takes = f"stream {request}" if method.cardinality.client_streaming else request
    returns = f"stream {response}" if method.cardinality.server_streaming else response
    return f"{method.name}({takes}) returns ({returns})"


def proto_says(method: Method) -> str:
    """Return the half of a message that tells what the proto says."""
    return f"the proto says `rpc {rpc_text(method)}`"


def to_write(method: Method, is_async: bool = True, takes_context: bool = False) -> str:
    """Return the first line of a method that fits an RPC."""
    return (
        f"{'async def' if is_async else 'def'} {method.python_name}"
        f"(self, {'requests' if method.cardinality.client_streaming else 'request'}: {_request(method, is_async)}"
        f"{f', {CONTEXT_PARAMETER}' if takes_context else ''})"
        f" -> {_response(method, is_async)}"
    )


def check_signature(rpc: Rpc, implementation: Implementation) -> Iterator[Problem]:
    """Yield what is wrong with the parameters and the annotations of a method."""
    try:
        signature = implementation.signature
    except ValueError:
        yield rpc.problem(
            "parameters",
            f"`{rpc.name}` takes no parameter, not even `self`; {proto_says(rpc.method)}",
            _write(rpc, implementation),
            implementation,
        )
        return
    if signature is None:
        return
    yield from _check_parameters(rpc, implementation, signature)
    checked = _Annotations(rpc, implementation)
    request = request_parameter(signature)
    if request is not None and request.annotation is not Parameter.empty:
        yield from checked.check_request(request.annotation)
    yield from checked.check_response(signature.return_annotation)


def request_parameter(signature: Signature) -> Parameter | None:
    """Return the parameter that gets the request: the first that takes a position. None when there is none."""
    for parameter in signature.parameters.values():
        if parameter.kind in (*_BY_POSITION, Parameter.VAR_POSITIONAL):
            return None if parameter.name == CONTEXT_PARAMETER else parameter
    return None


def _check_parameters(rpc: Rpc, implementation: Implementation, signature: Signature) -> Iterator[Problem]:
    request = request_parameter(signature)
    context = signature.parameters.get(CONTEXT_PARAMETER)
    if request is None:
        what = f"`{rpc.name}` {_why_no_request(implementation, signature)}"
        yield rpc.problem(
            "parameters", f"{what}; {proto_says(rpc.method)}", _write(rpc, implementation), implementation
        )
    if context is not None and context.kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL):
        yield rpc.problem(
            "parameters",
            f"`{rpc.name}` takes `{CONTEXT_PARAMETER}` by position only, and it is passed by name",
            f"make `{CONTEXT_PARAMETER}` a parameter that takes a name",
            implementation,
        )
    ours = {CONTEXT_PARAMETER, "request" if request is None else request.name}
    extra = [
        p.name
        for p in signature.parameters.values()
        if p.default is Parameter.empty and p.kind not in _VARIADIC and p.name not in ours
    ]
    if not extra:
        return
    called = [name for name in extra if name.lower().rstrip("_") in ("context", "ctx", "grpc_ctx", "grpccontext")]
    remedy = f"give {'it a default value' if len(extra) == 1 else 'them default values'}, or take {_it(extra)} out"
    yield rpc.problem(
        "extra-parameter",
        f"`{rpc.name}` requires {_list(extra)} besides the request, and nothing passes {_it(extra)}",
        f"rename `{called[0]}` to `{CONTEXT_PARAMETER}` to get the call's context" if called else remedy,
        implementation,
    )


def _why_no_request(implementation: Implementation, signature: Signature) -> str:
    parameters = signature.parameters
    positions = [p.name for p in parameters.values() if p.kind in _BY_POSITION]
    if len(positions) > 1:
        return f"takes `{CONTEXT_PARAMETER}` before `{positions[1]}`, and the request is passed first"
    by_name = [p.name for p in parameters.values() if p.kind is Parameter.KEYWORD_ONLY and p.name != CONTEXT_PARAMETER]
    if by_name:
        return f"takes `{by_name[0]}` by name only, and the request is passed by position"
    function = implementation.function
    if implementation.attribute is function and isinstance(function, types.FunctionType):
        # What Python binds to the instance, when the author forgot that it does.
        first = function.__code__.co_varnames[: function.__code__.co_argcount][:1]
        if first and first[0] != "self":
            return f"takes no request: its parameter `{first[0]}` gets the instance, as `self` does"
    return "takes no request"


class _Annotations:
    """Compares the annotations of one method with its RPC."""

    def __init__(self, rpc: Rpc, implementation: Implementation) -> None:
        self._rpc = rpc
        self._implementation = implementation
        self._scope: Scope = implementation.scope
        self._is_async, self._is_generator = implementation.kind
        self._is_batched = implementation.is_batched

    def check_request(self, annotation: Any) -> Iterator[Problem]:
        """Yield what is wrong with the annotation of the request."""
        method = self._rpc.method
        if self._is_batched:
            items = self._scope.batch_of(annotation)
            if items is None:
                yield self._wrong("request", "type", annotation, "`@serve.batch` passes a list of requests")
                return
            annotation = items
        shapes = list(self._scope.shapes(annotation))
        streams = [shape for shape in shapes if shape.form is Form.STREAM]
        if method.cardinality.client_streaming:
            fit = [s for s in shapes if s.form is Form.ANYTHING] + [
                s for s in streams if self._allows(s, method.request)
            ]
            if not fit:
                yield self._wrong("request", "type" if streams else "stream", annotation)
            elif all(s.form is Form.STREAM and not self._can_iterate(s) for s in fit):
                yield self._wrong("request", "stream", annotation, self._not_iterable())
        elif not self._any_fits(shapes, method.request):
            yield self._wrong("request", "stream" if streams else "type", annotation)

    def check_response(self, annotation: Any) -> Iterator[Problem]:
        """Yield what is wrong with the annotation of the response, or with ``yield`` where the proto has no stream."""
        method, streaming = self._rpc.method, self._rpc.method.cardinality.server_streaming
        if self._is_generator and not streaming:
            message = f"`{self._rpc.name}` is a generator function, it yields a stream; {proto_says(method)}"
            yield self._rpc.problem("response-stream", message, self._instead_of_yield(), self._implementation)
        elif annotation is not Signature.empty:
            for shape in self._returned(annotation):
                wrong = self._response_mistake(shape, streaming)
                if wrong is not None:
                    yield self._wrong("response", wrong, annotation)
                    return

    def _response_mistake(self, shape: Shape, streaming: bool) -> str | None:
        """Return which rule one member of the response's annotation breaks."""
        if shape.form in (Form.ANYTHING, Form.NEVER):
            return None
        message = self._rpc.method.response
        if streaming:
            if shape.form is not Form.STREAM:
                return None if shape.form is Form.NOTHING and self._can_write else "stream"
            # Every message of the stream must fit: None can't be sent.
            return None if all(self._fits(member, message) for member in self._one(shape.value)) else "type"
        if shape.form is Form.STREAM:
            return "stream"
        return None if self._fits(shape, message) else "type"

    @property
    def _can_write(self) -> bool:
        """Whether it is a coroutine function that can send its messages with the context's ``write``."""
        return self._is_async and not self._is_generator and self._implementation.takes_context

    def _returned(self, annotation: Any) -> Iterator[Shape]:
        """Yield what a call answers with: a plain function may return what is to be awaited."""
        streaming = self._rpc.method.cardinality.server_streaming
        for shape in self._scope.shapes(annotation) if streaming else self._one(annotation):
            if shape.form is Form.AWAITABLE and not self._is_async:
                yield from self._scope.shapes(shape.value)
            else:
                yield shape

    def _one(self, annotation: Any) -> Iterator[Shape]:
        """Yield what stands for one message: behind `@serve.batch`, the items of a list."""
        if not self._is_batched:
            yield from self._scope.shapes(annotation)
        elif (items := self._scope.batch_of(annotation)) is not None:
            yield from self._scope.shapes(items)
        else:
            shapes = self._scope.shapes(annotation)
            yield from (shape if shape.form is Form.NEVER else Shape(Form.VALUE, None) for shape in shapes)

    def _allows(self, stream: Shape, message: type[Message]) -> bool:
        return self._any_fits(self._scope.shapes(stream.value), message)

    def _any_fits(self, shapes: Iterable[Shape], message: type[Message]) -> bool:
        return any(self._fits(shape, message) for shape in shapes)

    @staticmethod
    def _fits(shape: Shape, message: type[Message]) -> bool:
        return shape.form is Form.ANYTHING or (shape.form is Form.VALUE and fits(shape.value, message))

    def _can_iterate(self, stream: Shape) -> bool:
        if self._is_async:
            return stream.is_async
        # A plain function may hand the requests on to an async generator; a generator function iterates itself.
        return stream.sync or not self._is_generator

    def _not_iterable(self) -> str:
        return "an async handler iterates with `async for`" if self._is_async else "a sync handler iterates with `for`"

    def _wrong(self, side: str, rule: str, annotation: Any, why: str = "") -> Problem:
        method = self._rpc.method
        resolved = self._scope.resolve(annotation)
        text = annotation if isinstance(annotation, str) else spell(annotation)
        message = method.request if side == "request" else method.response
        expected = self._expected(side)
        proto = why or proto_says(method)
        if isinstance(descriptor := getattr(resolved, "DESCRIPTOR", None), Descriptor):
            is_same = descriptor.full_name == message.DESCRIPTOR.full_name
            if not is_same and message_name(resolved) == message_name(message):
                # Two messages of one name, in two packages.
                text, proto = descriptor.full_name, f"the proto says `{message.DESCRIPTOR.full_name}`"
            elif text.rpartition(".")[2] != descriptor.name:
                text += f"`, which is `{message_name(resolved)}"
        remedy = f"annotate it as `{expected}`"
        if side == "response" and rule == "stream" and not method.cardinality.server_streaming:
            remedy = self._instead_of_yield()
        elif side == "response" and rule == "stream":
            remedy = f"yield the messages, and {remedy}"
        elif isinstance(resolved, Unresolved):
            remedy += f"; `{resolved.name}` can't be found at run time, import it outside `if TYPE_CHECKING:`"
        verb = "takes the request as" if side == "request" else "returns"
        return self._rpc.problem(
            f"{side}-{rule}", f"`{self._rpc.name}` {verb} `{text}`; {proto}", remedy, self._implementation
        )

    def _expected(self, side: str) -> str:
        """Return what to write: behind `@serve.batch` a list stands for each message."""
        method = self._rpc.method
        is_request = side == "request"
        text = message_name(method.request if is_request else method.response)
        if self._is_batched:
            text = f"list[{text}]"
        is_stream = method.cardinality.client_streaming if is_request else method.cardinality.server_streaming
        return _stream(text, self._is_async) if is_stream else text

    def _instead_of_yield(self) -> str:
        return f"return one `{message_name(self._rpc.method.response)}`, or make the response a stream in the proto"


def _request(method: Method, is_async: bool) -> str:
    name = message_name(method.request)
    return _stream(name, is_async) if method.cardinality.client_streaming else name


def _response(method: Method, is_async: bool) -> str:
    name = message_name(method.response)
    return _stream(name, is_async) if method.cardinality.server_streaming else name


def _stream(name: str, is_async: bool) -> str:
    return f"{'AsyncIterator' if is_async else 'Iterator'}[{name}]"


def _write(rpc: Rpc, implementation: Implementation) -> str:
    return f"write `{to_write(rpc.method, implementation.kind[0], implementation.takes_context)}`"


def _list(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
