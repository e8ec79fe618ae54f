"""Headers that Envoy sets, and the operators for their values."""

from __future__ import annotations

import json

from sdk._gen import envoy_pb2 as pb


def set_header(name: str, value: str) -> pb.HeaderValueOption:
    """Return a header that overwrites any header of the same name."""
    return pb.HeaderValueOption(
        header=pb.HeaderValue(key=name, value=value),
        append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def first_of(*operators: str, max_length: int | None = None) -> str:
    """Return the operator for the first of several that has a value.

    Args:
        operators: ``"RESP grpc-message"`` for ``%RESP(grpc-message)%``.
        max_length: Most characters of it.
    """
    pairs = (operator.partition(" ") for operator in operators)
    limit = {} if max_length is None else {"max_length": max_length}
    parts = [{"command": command, **({"param": value} if value else {}), **limit} for command, _, value in pairs]
    return f"%COALESCE({json.dumps({'operators': parts}, separators=(',', ':'))})%"
