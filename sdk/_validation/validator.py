"""Checks messages against the rules of their protos, with the package protovalidate.

Its errors are messages of another runtime and can't be pickled: none of them leaves this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sdk._gen.bad_request_pb2 import BadRequest
from sdk._validation.field_paths import format_path
from sdk.errors import InvalidResponseError, MissingExtraError, RpcError, RuleError

if TYPE_CHECKING:
    from google.protobuf.message import Message

#: Of a longer message, in bytes, only the first violation is looked for: a list of millions would exhaust the memory.
FIRST_ONLY_BYTES = 1 << 16
# Most bytes of both details together: trailers hold about 6 KiB, in base64 (sdk/_wire/status_trailers.py).
_DETAILS_BYTES = 3600
# Violations that the status message names.
_NAMED = 3

Collect = Callable[..., Sequence[Any]]


@functools.cache
def _protovalidate() -> Any:
    try:
        import protovalidate
    except ModuleNotFoundError as error:
        raise MissingExtraError("Validation of messages", error.name or "protovalidate", "validate") from error
    return protovalidate


@functools.cache
def collector() -> Collect:
    """Return the process's function for the violations of a message, which keeps the rules that it has compiled.

    Call it with the message, and with ``fail_fast=True`` for the first violation only.

    Raises:
        MissingExtraError: protovalidate is not installed.
    """
    return new_collector()


def new_collector() -> Collect:
    """Return such a function that has compiled no rules yet.

    Raises:
        MissingExtraError: protovalidate is not installed.
    """
    collect: Collect = _protovalidate().Validator().collect_violations
    return collect


def rule_errors() -> tuple[type[Exception], type[Exception]]:
    """Return the classes of protovalidate's errors about rules that can't be compiled, and can't be evaluated.

    Raises:
        MissingExtraError: protovalidate is not installed.
    """
    known = _protovalidate()
    return known.CompilationError, known.EvaluationError


def violations_of(message: Message, size: int | None = None) -> Sequence[Any]:
    """Return the violations of a message.

    Args:
        message: The message.
        size: Bytes of its serialized form, if they are known.

    Raises:
        RuleError: A rule can't be compiled or evaluated.
        MissingExtraError: protovalidate is not installed.
    """
    if size is None:
        size = type(message).ByteSize(message)  # a field may have the name of this method
    try:
        return collector()(message, fail_fast=size > FIRST_ONLY_BYTES)
    except rule_errors() as error:
        raise RuleError(type(message).DESCRIPTOR.full_name, first_line(error)) from None


def check_request(request: Message) -> None:
    """Check the request of a call.

    Raises:
        RpcError: It breaks rules; with status INVALID_ARGUMENT.
        RuleError: A rule can't be compiled or evaluated.
    """
    if violations := violations_of(request):
        raise invalid_request(violations)


def invalid_request(violations: Sequence[Any]) -> RpcError:
    """Return the error for a request: INVALID_ARGUMENT with ``google.rpc.BadRequest`` and ``buf.validate.Violations``.

    As many violations are named as fit into trailers. See https://grpc.io/docs/guides/error/#richer-error-model.

    Args:
        violations: Those of protovalidate, at least one.
    """
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage

    bad = BadRequest()
    kept: list[Any] = []
    size = 0
    for violation in violations:
        proto = violation.proto
        field = BadRequest.FieldViolation(field=format_path(proto.field), description=_description(proto))
        size += field.ByteSize() + len(proto.to_binary()) + 8  # of two fields' tags and lengths
        if kept and size > _DETAILS_BYTES:
            break
        bad.field_violations.append(field)
        kept.append(proto)
    listed = _protovalidate().ViolationsPb(violations=kept).to_binary()
    # Not packed: packing needs a class of this runtime, and so a copy of their protos.
    details = [
        AnyMessage(type_url="type.googleapis.com/google.rpc.BadRequest", value=bad.SerializeToString()),
        AnyMessage(type_url="type.googleapis.com/buf.validate.Violations", value=listed),
    ]
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, describe(violations), errors=details)


def invalid_response(violations: Sequence[Any], label: str) -> InvalidResponseError:
    """Return the error for a response, which is a fault of its handler.

    Args:
        violations: Those of protovalidate, at least one.
        label: Name of the handler, ``"Greeter.SayHello"``.
    """
    return InvalidResponseError(
        f"{label} returned a message that breaks the rules of its proto: {describe(violations)}"
    )


def describe(violations: Sequence[Any]) -> str:
    """Return the first violations as one line, ``"name: must be at least 1 characters"``."""
    texts = []
    for violation in violations[:_NAMED]:
        path = format_path(violation.proto.field)
        texts.append(f"{path}: {_description(violation.proto)}" if path else _description(violation.proto))
    if len(violations) > _NAMED:
        texts.append(f"and {len(violations) - _NAMED} more")
    return "; ".join(texts)


def first_line(error: Exception) -> str:
    """Return the text of an exception of protovalidate without the excerpt of the expression below it."""
    return str(error).split("\n", 1)[0]


def _description(proto: Any) -> str:
    return proto.message or f"breaks the rule {proto.rule_id}"
