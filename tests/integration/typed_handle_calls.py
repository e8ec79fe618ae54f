"""Calls of a client to a handler that calls others through typed handles, and their ends."""

from __future__ import annotations

import json
from typing import Any

import grpc
from user_defined_protos_pb2 import UserDefinedMessage as Message
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

_METADATA = (("application", "typed"), ("request_id", "r1"), ("multiplexed_model_id", "m1"), ("user", "me"))

_CARRIED = {"request_id": "r1", "serve": ["m1", "r1"], "model": "m1", "user": "me"}
OUTCOMES: list[Any] = [
    _CARRIED,
    {**_CARRIED, "serve": ["m2", "r1"], "model": "m2", "user": "you"},
    True,
    "deflate 100000 ",
    "NOT_FOUND no such note",
    "INTERNAL",
    "INTERNAL",
    "DEADLINE_EXCEEDED Deadline exceeded",
    [[0, "r1"], [1, "r1"], [2, "r1"]],
    [[0, "r1"], [1, "r1"], [0, "DATA_LOSS half"]],
]


def outcomes(channel: grpc.Channel) -> list[Any]:
    """Return what each kind of call ends with.

    Args:
        channel: Leads to the application ``typed`` of ``typed_handle_apps``.
    """
    stub = UserDefinedServiceStub(channel)

    def ask(name: str, origin: str = "", number: int = 0) -> Any:
        message = Message(name=name, origin=origin, num=number)
        return stub.__call__(message, metadata=_METADATA, timeout=60).greeting

    seen = json.loads(ask("seen"))
    given = json.loads(ask("seen", "given"))
    return [
        {key: seen[key] for key in ("request_id", "model", "serve", "user")},
        {key: given[key] for key in ("request_id", "model", "serve", "user")},
        seen["left"] is not None,
        ask("packed", "packed"),
        ask("fail", "caught"),
        ask("raise", "caught").partition(" ")[0],
        ask("stop", "caught").partition(" ")[0],
        ask("wait own", "caught", 500).partition(".")[0],
        [_told(reply) for reply in stub.Streaming(Message(num=3), metadata=_METADATA)],
        [_told(reply) for reply in stub.Streaming(Message(name="fail", num=2, origin="caught"), metadata=_METADATA)],
    ]


def _told(reply: Any) -> list[Any]:
    return [reply.num, reply.greeting]
