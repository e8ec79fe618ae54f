"""The option ``allow`` of a deployment: callers × methods, for clients, through handles, and on other ways in."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from greeter_pb2 import HelloReply, HelloRequest

from sdk import DefinitionError, RpcError, grpc_deployment
from sdk._contract.definition import collect_definition_errors, definition_of
from sdk._serve.checked_methods import checked_methods
from sdk._wire.call_rules import is_one_of
from sdk._wire.dispatch import build_routes
from sdk.access import ApiKey, Certificate, Token
from sdk.context import ServicerContext
from tests.security.greeting import ALL, EACH, MANY, SAY_HELLO, Mirror
from tests.security.ruled import Passing, Ruled, RuledSync
from tests.security.world import CALLERS, DENIED, OK, UNKNOWN, World

# Caller → answers for SayHello with no name, SayHelloInManyTongues, SayHelloToAll and SayHelloToEach.
ANSWERS: dict[str, tuple[str, str, str, str]] = {
    "nobody": (UNKNOWN, UNKNOWN, UNKNOWN, OK),
    "a user": (DENIED, OK, DENIED, OK),
    "an admin": (OK, OK, DENIED, OK),
    "an admin by a nested claim": (DENIED, OK, DENIED, OK),
    "a writer by scope": (DENIED, OK, OK, OK),
    "a reader by scope": (DENIED, OK, DENIED, OK),
    "the batch key": (OK, OK, DENIED, OK),
    "the viewer key": (DENIED, OK, DENIED, OK),
    "a workload": (DENIED, OK, OK, OK),
    "another workload": (DENIED, OK, DENIED, OK),
    "a host": (DENIED, OK, OK, OK),
}


@pytest.mark.parametrize("who", ANSWERS)
@pytest.mark.parametrize("application", ["ruled", "ruled-sync", "passing"])
def test_who_may_call_what(world: World, application: str, who: str) -> None:
    got = [world.call(CALLERS[who], path, application) for path in (SAY_HELLO, MANY, ALL, EACH)]
    assert tuple(each.status for each in got) == ANSWERS[who]
    for each, name in zip(got, ("SayHello", "SayHelloInManyTongues", "SayHelloToAll", ""), strict=True):
        assert each.trailers["request_id"]
        if each.status == UNKNOWN:
            assert each.details == f"The call needs credentials: the deployment allows {name} for known clients only."
            assert each.trailers["www-authenticate"] == "Bearer"
        elif each.status == DENIED:
            assert each.details == f"The deployment does not allow {name} for this client."


def say(world: World, who: str, name: str, application: str = "ruled", **options: Any) -> tuple[str, str]:
    caller = CALLERS[who]
    method = world.channel(caller.certificate).unary_unary(
        SAY_HELLO, HelloRequest.SerializeToString, HelloReply.FromString
    )
    metadata = (*caller.metadata, ("application", application))
    try:
        method(HelloRequest(name=name), metadata=metadata, timeout=30, **options)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""  # type: ignore[attr-defined]  # it is a call, too
    return OK, ""


@pytest.mark.parametrize("application", ["ruled", "ruled-sync", "passing"])
def test_a_function_decides_by_the_request(world: World, application: str) -> None:
    assert say(world, "a user", "ann", application) == (OK, "")
    assert say(world, "a user", "bob", application)[0] == DENIED
    assert say(world, "the viewer key", "viewer", application)[0] == OK
    assert say(world, "nobody", "ann", application)[0] == UNKNOWN
    assert say(world, "an admin", "broken", application)[0] == OK, "the function is not asked"


def test_a_function_that_raises_allows_nothing(world: World) -> None:
    code, details = say(world, "a user", "broken")
    assert code == "INTERNAL"
    assert "KeyError" in details


def test_a_compressed_request_is_read_once_more_for_the_function(world: World) -> None:
    compressed = {"compression": grpc.Compression.Gzip}
    assert say(world, "a user", "ann", **compressed)[0] == OK
    assert say(world, "a user", "ann" * 1000, **compressed)[0] == DENIED


@pytest.mark.parametrize("application", ["ruled", "ruled-sync"])
def test_a_long_request_reaches_the_function_and_the_handler_whole(world: World, application: str) -> None:
    caller = CALLERS["a user"]
    unknown_field = b"\x7a\x80\x80\x40" + bytes(1 << 20)  # so that the request arrives in pieces
    method = world.channel(caller.certificate).unary_unary(SAY_HELLO, lambda name: b"\x0a\x03" + name + unknown_field)
    metadata = (*caller.metadata, ("application", application))
    assert b"ann" in method(b"ann", metadata=metadata, timeout=30)
    with pytest.raises(grpc.RpcError) as raised:
        method(b"bob", metadata=metadata, timeout=30)
    assert raised.value.code().name == DENIED  # type: ignore[attr-defined]  # it is a call, too


def problems(allow: Any) -> list[str]:
    with pytest.raises(DefinitionError) as raised:
        grpc_deployment(allow=allow)(type("Wrong", (Mirror,), {}))
    assert {each.rule for each in raised.value.problems} == {"allow"}
    return [f"{each.message} → {each.remedy}" for each in raised.value.problems]


def of_reply(request: HelloReply, grpc_context: ServicerContext) -> bool:
    return True


async def is_async(request: HelloRequest, grpc_context: ServicerContext) -> bool:
    return False


def of_one(request: HelloRequest) -> bool:
    return True


def fits(request: HelloRequest, grpc_context: ServicerContext) -> bool:
    return True


WRITE = "write 'anyone', 'authenticated', a Token, an ApiKey, a Certificate, or a function of request and context"
WRONG: list[tuple[Any, list[str]]] = [
    (
        "admins",
        [f"allow: who must be 'anyone', 'authenticated', a Token, an ApiKey or a Certificate, not 'admins' → {WRITE}"],
    ),
    ([], [f"allow is empty: nobody may call → {WRITE}"]),
    ([Token, 7], [f"allow is {Token!r} → {WRITE}", f"allow is 7 → {WRITE}"]),
    (ApiKey("a b"), [f"allow: name must be that of an API key, or '*', not 'a b' → {WRITE}"]),
    (
        {"SayHelo": "anyone", "*": ()},
        [
            "allow names `SayHelo`, which is not an RPC of greeter.Greeter → write SayHello",
            f"allow of `*` is empty: nobody may call → {WRITE}",
        ],
    ),
    (
        {"SayHello": "anyone", "SayHelloToAll": "anyone", "SayHelloToEach": "anyone"},
        ['allow does not say who may call SayHelloInManyTongues → name it, or "*" for all others'],
    ),
    (
        {"SayHello": [of_reply, is_async, of_one], "*": "anyone"},
        [
            "allow of `SayHello`: of_reply takes a HelloReply, and SayHello a HelloRequest → annotate the request as "
            "HelloRequest, or give SayHello a separate rule",
            "allow of `SayHello`: is_async is async or a generator, and its result would count as True → write a plain "
            "function that returns a bool; an interceptor can wait",
            "allow of `SayHello`: of_one can't be called with a request and a context → give it these two parameters",
        ],
    ),
    (
        fits,
        [
            f"allow: fits decides by the request, and {name} takes a stream of requests → name identities for it, and "
            "check its messages in the handler or an interceptor"
            for name in ("SayHelloToAll", "SayHelloToEach")
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("allow", "said"), WRONG, ids=lambda value: "" if isinstance(value, list) else str(value)[:20])
def test_wrong_values_are_named_together(allow: Any, said: list[str]) -> None:
    assert problems(allow) == said


def test_sdk_check_collects_them() -> None:
    with collect_definition_errors() as found:
        cls = grpc_deployment(allow=[])(type("Wrong", (Mirror,), {}))
    assert [each.rule for each in found[cls]] == ["allow"]


def test_an_rpc_without_a_rule_has_the_answer_that_it_had() -> None:
    answers = [build_routes(definition_of(cls).bindings(cls())) for cls in (Mirror, Ruled)]  # type: ignore[union-attr]
    same = {path.decode() for path in answers[0] if answers[0][path].answer is answers[1][path].answer}
    assert same == {EACH}


def test_a_definition_keeps_its_rules_when_it_is_pickled() -> None:
    definition = definition_of(Ruled)
    assert definition is not None
    copy = pickle.loads(pickle.dumps(definition))
    assert (copy.allow, copy.rules) == (definition.allow, definition.rules)
    assert definition_of(Passing).rules == {}  # type: ignore[union-attr]  # it is decorated


class RayContext(SimpleNamespace):
    """The context of Ray Serve's own proxy, which verifies nothing."""

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def seen_by_a_handler(known: dict[str, tuple[bytes, ...]]) -> ServicerContext:
    return ServicerContext(SimpleNamespace(auth_context=known))  # type: ignore[arg-type]  # the part that rules read


@pytest.mark.parametrize("cls", [Ruled, RuledSync])
def test_ways_without_a_wire_server(cls: Any) -> None:
    """Ray Serve's own proxy and its plain handles call methods of the object, which check as the wire server does."""
    definition = definition_of(cls)
    assert definition is not None
    methods = checked_methods(cls, definition)
    assert set(methods) == {"SayHello", "SayHelloInManyTongues", "SayHelloToAll"}
    replica = type("Replica", (cls,), methods)()
    context = RayContext()
    for arguments in ({"request": HelloRequest(name="ann")}, {"request": HelloRequest(), "grpc_context": context}):
        with pytest.raises(RpcError) as raised:
            _finish(replica.SayHello(**arguments))
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert context.code is grpc.StatusCode.UNAUTHENTICATED
    assert "needs credentials" in context.details
    ann = seen_by_a_handler({"token_claims": (b'{"iss": "i", "sub": "ann"}',), "token_subject": (b"ann",)})
    with pytest.raises(RpcError) as raised:
        _finish(replica.SayHello(HelloRequest(), grpc_context=ann))
    assert raised.value.code is grpc.StatusCode.PERMISSION_DENIED


def _finish(result: Any) -> None:
    if hasattr(result, "__await__"):

        async def wait() -> None:
            await result

        asyncio.run(wait())


@pytest.mark.parametrize(
    ("who", "claims", "expected"),
    [
        (Token(), '{"iss": "i"}', True),
        (Token(), '{"sub": "a"}', False),
        (Token("i"), '{"iss": "j"}', False),
        (Token(claims={"n": "7"}), '{"iss": "i", "n": 7}', False),
        (Token(claims={"n": "*"}), '{"iss": "i", "n": 7}', False),
        (Token(claims={"n": "*"}), '{"iss": "i", "n": ""}', True),
        (Token(claims={"a.b": "x*"}), '{"iss": "i", "a": {"b": ["y", "xy"]}}', True),
        (Token(claims={"a.b": "x*"}), '{"iss": "i", "a": ["b"], "a.b": "xy"}', False),
        (Token(claims={"https://x.y/r": "*z"}), '{"iss": "i", "https://x.y/r": "az"}', True),
        (Token(claims={"scope": "write"}), '{"iss": "i", "scope": "read write"}', True),
        (Token(claims={"other": "write"}), '{"iss": "i", "other": "read write"}', False),
        (Token(claims={"a": "1", "b": ["2", "3"]}), '{"iss": "i", "a": "1", "b": "3"}', True),
        (Token(claims={"a": "1", "b": ["2", "3"]}), '{"iss": "i", "a": "1"}', False),
    ],
)
def test_claims(who: Token, claims: str, expected: bool) -> None:
    assert is_one_of([who], {"token_claims": (claims.encode(),)}) is expected


def test_transport_security_is_no_identity() -> None:
    assert not is_one_of(
        ["authenticated", Certificate("*"), ApiKey("*"), Token()], {"transport_security_type": (b"ssl",)}
    )
