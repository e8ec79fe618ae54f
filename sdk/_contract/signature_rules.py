"""The rules by which a method fits its RPC: its parameters, and its annotations of the request and the response."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import Descriptor

from sdk._contract import locations
from sdk._contract.annotations import (
    NOT_TYPES,
    AnnotationScope,
    MemberKind,
    UnionMember,
    Unresolved,
    allows_message,
    collection_items,
    format_annotation,
    message_name,
)
from sdk._contract.effective_signature import CONTEXT_PARAMETER
from sdk.errors import Problem

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk._contract.implementations import Implementation
    from sdk.service import Method, Service

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_WITHOUT_DECORATOR = "remove the decorator, or make the response a stream in the proto"
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class RequiredRpc:
    """An RPC that a class must implement.

    Attributes:
        cls: The class.
        service: The service of the RPC.
        method: The RPC.
    """

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
            message: The problem.
            remedy: How to fix it.
            implementation: The attribute with the problem; its location is reported instead of that of the class.
        """
        code = locations.of_function(implementation.function) if implementation is not None else ""
        return Problem(
            rule,
            f"{self.cls.__name__}.{self.method.name}",
            message,
            remedy,
            code_location=code or locations.of_class(self.cls),
            proto_location=locations.of_proto(self.service, self.method.line),
        )


def format_rpc(method: Method, *, full_names: bool = False) -> str:
    """Return an RPC in the syntax of its proto, ``"SayHello(HelloRequest) returns (HelloReply)"``.

    Args:
        method: The RPC.
        full_names: Include the packages of the messages.
    """
    request, response = (
        message.DESCRIPTOR.full_name if full_names else message_name(message)
        for message in (method.request, method.response)
    )
    takes = f"stream {request}" if method.cardinality.client_streaming else request
    returns = f"stream {response}" if method.cardinality.server_streaming else response
    return f"{method.name}({takes}) returns ({returns})"


def proto_says(method: Method) -> str:
    """Return the half of a message that quotes the proto."""
    return f"the proto says `rpc {format_rpc(method)}`"


def suggested_def(method: Method, is_async: bool = True, takes_context: bool = False) -> str:
    """Return the ``def`` line of a method that fits an RPC, without the colon."""
    return (
        f"{'async def' if is_async else 'def'} {method.python_name}"
        f"(self, {'requests' if method.cardinality.client_streaming else 'request'}: {_request(method, is_async)}"
        f"{f', {CONTEXT_PARAMETER}' if takes_context else ''})"
        f" -> {_response(method, is_async)}"
    )


def check_signature(rpc: RequiredRpc, implementation: Implementation) -> Iterator[Problem]:
    """Yield the problems of the parameters and the annotations of a method.

    Args:
        rpc: The RPC.
        implementation: The method.
    """
    try:
        signature = implementation.signature
    except ValueError:
        yield rpc.problem(
            "parameters",
            f"`{rpc.name}` takes no parameter, not even `self`; {proto_says(rpc.method)}",
            _write_remedy(rpc, implementation),
            implementation,
        )
        return
    if signature is None:
        return
    yield from _check_parameters(rpc, implementation, signature)
    if getattr(implementation.function, "__no_type_check__", False):
        return  # https://docs.python.org/3/library/typing.html#typing.no_type_check: its annotations are not types
    checked = _AnnotationCheck(rpc, implementation)
    request = request_parameter(signature)
    if request is not None and request.annotation is not Parameter.empty:
        yield from checked.check_request(request.annotation)
    yield from checked.check_response(signature.return_annotation)


def request_parameter(signature: Signature) -> Parameter | None:
    """Return the parameter that receives the request, the first positional one, or None."""
    for parameter in signature.parameters.values():
        if parameter.kind in (*_BY_POSITION, Parameter.VAR_POSITIONAL):
            return None if parameter.name == CONTEXT_PARAMETER else parameter
    return None


def _check_parameters(rpc: RequiredRpc, implementation: Implementation, signature: Signature) -> Iterator[Problem]:
    request = request_parameter(signature)
    context = signature.parameters.get(CONTEXT_PARAMETER)
    if request is None:
        what = f"`{rpc.name}` {_why_no_request(implementation, signature)}"
        yield rpc.problem(
            "parameters", f"{what}; {proto_says(rpc.method)}", _write_remedy(rpc, implementation), implementation
        )
    if context is not None and context.kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL):
        yield rpc.problem(
            "parameters",
            f"`{CONTEXT_PARAMETER}` of `{rpc.name}` is positional-only, but it is passed by name",
            f"make `{CONTEXT_PARAMETER}` a parameter that can be passed by name",
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
    remedy = f"give {'it a default value' if len(extra) == 1 else 'them default values'}, or remove {_pronoun(extra)}"
    yield rpc.problem(
        "extra-parameter",
        f"`{rpc.name}` requires {_join_names(extra)} in addition to the request, but nothing passes {_pronoun(extra)}",
        f"rename `{called[0]}` to `{CONTEXT_PARAMETER}` to get the call's context" if called else remedy,
        implementation,
    )


def _why_no_request(implementation: Implementation, signature: Signature) -> str:
    parameters = signature.parameters
    positions = [p.name for p in parameters.values() if p.kind in _BY_POSITION]
    if len(positions) > 1:
        return f"takes `{CONTEXT_PARAMETER}` before `{positions[1]}`, but the request is passed first"
    by_name = [p.name for p in parameters.values() if p.kind is Parameter.KEYWORD_ONLY and p.name != CONTEXT_PARAMETER]
    if by_name:
        return f"has `{by_name[0]}` as a keyword-only parameter, but the request is passed by position"
    function, attribute = implementation.function, implementation.attribute
    if isinstance(function, types.FunctionType) and isinstance(attribute, types.FunctionType):
        # The author forgot `self`, so Python passes the instance as the first parameter.
        first = function.__code__.co_varnames[: function.__code__.co_argcount][:1]
        if first and first[0] != "self":
            return f"takes no request: its first parameter, `{first[0]}`, receives the instance, as `self` does"
    return "takes no request"


class _AnnotationCheck:
    """Compares the annotations of one method with its RPC."""

    def __init__(self, rpc: RequiredRpc, implementation: Implementation) -> None:
        self._rpc = rpc
        self._implementation = implementation
        self._scope: AnnotationScope = implementation.scope
        self._is_async, self._is_generator = implementation.annotated_kind
        self._is_batched = implementation.is_batched

    def check_request(self, annotation: Any) -> Iterator[Problem]:
        """Yield the problems of the annotation of the request."""
        method = self._rpc.method
        if self._is_batched:
            items = self._scope.batch_of(annotation)
            if items is None:
                yield self._wrong("request", "type", annotation, "`@serve.batch` passes a list of requests")
                return
            annotation = items
        members = list(self._scope.members(annotation))
        streams = [member for member in members if member.kind is MemberKind.STREAM and member.is_requests]
        if method.cardinality.client_streaming:
            fit = [s for s in members if s.kind is MemberKind.ANY] + [
                s for s in streams if self._allows(s, method.request)
            ]
            if not fit:
                yield self._wrong("request", "type" if streams else "stream", annotation)
            elif all(s.kind is MemberKind.STREAM and not self._can_iterate(s) for s in fit):
                yield self._wrong("request", "stream", annotation, self._not_iterable())
        elif not self._any_fits(members, method.request):
            is_stream = any(member.kind is MemberKind.STREAM for member in members)
            yield self._wrong("request", "stream" if is_stream else "type", annotation)

    def check_response(self, annotation: Any) -> Iterator[Problem]:
        """Yield the problems of the annotation of the response, and of a ``yield`` where the proto has no stream."""
        method, streaming = self._rpc.method, self._rpc.method.cardinality.server_streaming
        if self._implementation.kind[1] and not streaming:
            what = "is" if self._is_generator else "has a decorator that makes it"
            message = f"`{self._rpc.name}` {what} a generator function, which returns a stream; {proto_says(method)}"
            remedy = self._instead_of_yield() if self._is_generator else _WITHOUT_DECORATOR
            yield self._rpc.problem("response-stream", message, remedy, self._implementation)
        elif annotation is not Signature.empty:
            for member, is_awaited in self._returned(annotation):
                wrong = self._response_mistake(member, streaming, is_awaited)
                if wrong is not None:
                    why = self._not_a_generator() if wrong == "stream" and self._is_generator else ""
                    yield self._wrong("response", wrong, annotation, why)
                    return

    def _response_mistake(self, member: UnionMember, streaming: bool, is_awaited: bool) -> str | None:
        """Return the rule that one member of the response's annotation breaks, or None."""
        if member.kind in (MemberKind.ANY, MemberKind.NEVER):
            return None
        message = self._rpc.method.response
        if streaming:
            if member.kind is MemberKind.NONE:  # its messages are sent with the context's write()
                return None if is_awaited and self._implementation.takes_context else "stream"
            items = self._stream_items(member)
            # Every member must fit: None can't be sent as a message of the stream.
            fits = all(self._fits(one, message) for item in items for one in self._one(item))
            return None if items and fits else "type" if items else "stream"
        if member.kind is MemberKind.STREAM:
            return "stream"
        return None if self._fits(member, message) else "type"

    def _stream_items(self, member: UnionMember) -> tuple[Any, ...]:
        """Return the types of the messages of a stream; none if the member is not one that the function returns."""
        if self._is_generator:  # it returns a generator, and nothing else that is iterable
            is_right_kind = member.is_async if self._is_async else member.is_sync
            return (member.value,) if is_right_kind else ()
        if member.kind is MemberKind.STREAM:
            return (member.value,)
        return () if self._is_batched else collection_items(member)

    def _returned(self, annotation: Any) -> Iterator[tuple[UnionMember, bool]]:
        """Yield the members of the response, each with True if it is awaited, as a plain function's may be too."""
        streaming = self._rpc.method.cardinality.server_streaming
        for member in self._scope.members(annotation) if streaming else self._one(annotation):
            if member.kind is MemberKind.AWAITABLE and not self._is_async:
                yield from ((each, True) for each in self._scope.members(member.value))
            else:
                yield member, self._is_async and not self._is_generator

    def _one(self, annotation: Any) -> Iterator[UnionMember]:
        """Yield the members of the annotation of one message; for `@serve.batch`, of the items of the list."""
        if not self._is_batched:
            yield from self._scope.members(annotation)
        elif (items := self._scope.batch_of(annotation)) is not None:
            yield from self._scope.members(items)
        else:
            members = self._scope.members(annotation)
            yield from (
                member if member.kind is MemberKind.NEVER else UnionMember(MemberKind.VALUE, None) for member in members
            )

    def _allows(self, stream: UnionMember, message: type[Message]) -> bool:
        return self._any_fits(self._scope.members(stream.value), message)

    def _any_fits(self, members: Iterable[UnionMember], message: type[Message]) -> bool:
        return any(self._fits(member, message) for member in members)

    @staticmethod
    def _fits(member: UnionMember, message: type[Message]) -> bool:
        return member.kind is MemberKind.ANY or (
            member.kind is MemberKind.VALUE and allows_message(member.value, message)
        )

    def _can_iterate(self, stream: UnionMember) -> bool:
        if self._is_async:
            return stream.is_async
        # A plain function may pass the requests to an async generator; a generator function iterates over them itself.
        return stream.is_sync or not self._is_generator

    def _not_iterable(self) -> str:
        return "an async handler iterates with `async for`" if self._is_async else "a sync handler iterates with `for`"

    def _not_a_generator(self) -> str:
        return f"it is a{'n async' if self._is_async else ''} generator function"

    def _wrong(self, side: str, rule: str, annotation: Any, why: str = "") -> Problem:
        method = self._rpc.method
        resolved = self._scope.resolve(annotation)
        text = annotation if isinstance(annotation, str) else format_annotation(annotation)
        message = method.request if side == "request" else method.response
        expected = self._expected(side)
        quoted, proto = f"`{text}`", why or proto_says(method)
        if isinstance(descriptor := getattr(resolved, "DESCRIPTOR", None), Descriptor):
            is_same = descriptor.full_name == message.DESCRIPTOR.full_name
            if not is_same and message_name(resolved) == message_name(message):
                # Two messages with the same name in two packages.
                quoted, proto = f"`{descriptor.full_name}`", f"the proto says `{message.DESCRIPTOR.full_name}`"
            elif text.rpartition(".")[2] != descriptor.name:
                quoted += f", which is `{message_name(resolved)}`"
        elif isinstance(resolved, NOT_TYPES):
            quoted += ", which is not a type"
        remedy = f"annotate it as `{expected}`"
        if side == "response" and rule == "stream" and not method.cardinality.server_streaming:
            remedy = self._instead_of_yield()
        elif side == "response" and rule == "stream" and not self._is_generator:
            remedy = f"yield the messages, and {remedy}"
        elif isinstance(resolved, Unresolved) and resolved.name.isidentifier():
            remedy += f"; `{resolved.name}` can't be resolved at run time: import it outside `if TYPE_CHECKING:`"
        verb = "takes the request as" if side == "request" else "returns"
        return self._rpc.problem(
            f"{side}-{rule}", f"`{self._rpc.name}` {verb} {quoted}; {proto}", remedy, self._implementation
        )

    def _expected(self, side: str) -> str:
        """Return the expected annotation; `@serve.batch` takes and returns lists of messages."""
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


def _write_remedy(rpc: RequiredRpc, implementation: Implementation) -> str:
    return f"write `{suggested_def(rpc.method, implementation.kind[0], implementation.takes_context)}`"


def _join_names(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _pronoun(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
