from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import right_classes
import wrong_classes

from sdk.checks import check, unannotated
from sdk.definition import define
from sdk.errors import DefinitionError, Problem
from sdk.implementation import kind_of

HERE = Path(__file__).parent


@pytest.mark.parametrize("case", wrong_classes.WRONG, ids=lambda case: case.cls.__name__)
def test_wrong_class(case: Any) -> None:
    problems = check(case.cls)
    assert {(problem.rule, problem.subject) for problem in problems} == case.expected
    assert len(problems) == len(case.expected)
    for problem in problems:
        assert problem.message
        assert problem.remedy
        assert "wrong_classes.py:" in problem.code_location


@pytest.mark.parametrize("cls", right_classes.RIGHT, ids=lambda cls: cls.__name__)
def test_right_class(cls: type) -> None:
    assert check(cls) == []


def test_enough_of_both() -> None:
    assert len(wrong_classes.WRONG) >= 30
    assert len(right_classes.RIGHT) >= 20


def problem_of(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the only problem of a wrong class as it is shown, with the line of its code as LINE."""
    monkeypatch.chdir(HERE)
    cls = getattr(wrong_classes, name)
    (problem,) = check(cls)
    line = int(problem.code_location.rpartition(":")[2])
    source, first = inspect.getsourcelines(cls)
    assert first <= line < first + len(source) or "hides" in problem.message
    return str(problem).replace(f"wrong_classes.py:{line}", "wrong_classes.py:LINE")


SAYS = "the proto says `rpc SayHello(HelloRequest) returns (HelloReply)`"
PLACES = "(wrong_classes.py:LINE, greet.proto:6)"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "Missing",
            f"Missing.SayHello: the class has no method `SayHello`; {SAYS} {PLACES}"
            " → write `async def SayHello(self, request: HelloRequest) -> HelloReply`",
        ),
        (
            "Misspelled",
            f"Misspelled.SayHello: the class has no method `SayHello`, did you mean `SayHelo`? T{SAYS[1:]} {PLACES}"
            " → rename `SayHelo` to `SayHello`",
        ),
        (
            "SnakeCase",
            f"SnakeCase.SayHello: the class spells it `say_hello`; {SAYS} {PLACES}"
            " → rename `say_hello` to `SayHello`: names of RPCs must be equal to the letter",
        ),
        (
            "HiddenByItsBase",
            "HiddenByItsBase.SayHello: `GreeterBase` hides the `SayHello` of `Implementation`, which comes after it in"
            f" the bases; {SAYS} {PLACES} → name `Implementation` before `GreeterBase` in the bases of"
            " `HiddenByItsBase`",
        ),
        (
            "Property",
            f"Property.SayHello: `SayHello` is a property and not a method; {SAYS} {PLACES}"
            " → write `async def SayHello(self, request: HelloRequest) -> HelloReply`",
        ),
        (
            "SelfForgotten",
            "SelfForgotten.SayHello: `SayHello` takes no request: its parameter `request` gets the instance, as `self`"
            f" does; {SAYS} {PLACES} → write `async def SayHello(self, request: HelloRequest) -> HelloReply`",
        ),
        (
            "KeywordOnlyRequest",
            "KeywordOnlyRequest.SayHello: `SayHello` takes `request` by name only, and the request is passed by"
            f" position; {SAYS} {PLACES} → write `async def SayHello(self, request: HelloRequest) -> HelloReply`",
        ),
        (
            "ClassicContext",
            "ClassicContext.SayHello: `SayHello` requires `context` besides the request, and nothing passes it"
            f" {PLACES} → rename `context` to `grpc_context` to get the call's context",
        ),
        (
            "ExtraParameters",
            "ExtraParameters.SayHello: `SayHello` requires `user` and `verbose` besides the request, and nothing passes"
            f" them {PLACES} → give them default values, or take them out",
        ),
        (
            "RequestOfAnotherType",
            f"RequestOfAnotherType.SayHello: `SayHello` takes the request as `HelloReply`; {SAYS} {PLACES}"
            " → annotate it as `HelloRequest`",
        ),
        (
            "SameNameOfAnotherPackage",
            "SameNameOfAnotherPackage.SayHello: `SayHello` returns `checks.other.HelloReply`; the proto says"
            f" `checks.greet.HelloReply` {PLACES} → annotate it as `HelloReply`",
        ),
        (
            "PerhapsNone",
            f"PerhapsNone.SayHello: `SayHello` returns `HelloReply | None`; {SAYS} {PLACES}"
            " → annotate it as `HelloReply`",
        ),
        (
            "AsyncGeneratorForOneResponse",
            f"AsyncGeneratorForOneResponse.SayHello: `SayHello` is a generator function, it yields a stream; {SAYS}"
            f" {PLACES} → return one `HelloReply`, or make the response a stream in the proto",
        ),
        (
            "OneResponseForStream",
            "OneResponseForStream.Down: `Down` returns `HelloReply`; the proto says `rpc Down(HelloRequest) returns"
            f" (stream HelloReply)` {PLACES} → yield the messages, and annotate it as `AsyncIterator[HelloReply]`",
        ),
        (
            "OneRequestForStream",
            "OneRequestForStream.Up: `Up` takes the request as `HelloRequest`; the proto says `rpc Up(stream"
            f" HelloRequest) returns (HelloReply)` {PLACES} → annotate it as `AsyncIterator[HelloRequest]`",
        ),
        (
            "AsyncOverIterator",
            "AsyncOverIterator.Up: `Up` takes the request as `Iterator[HelloRequest]`; an async handler iterates with"
            f" `async for` {PLACES} → annotate it as `AsyncIterator[HelloRequest]`",
        ),
        (
            "NestedMessage",
            "NestedMessage.Get: `Get` returns `HelloReply`; the proto says `rpc Get(HelloRequest) returns"
            f" (Outer.Inner)` {PLACES} → annotate it as `Outer.Inner`",
        ),
        (
            "Disagreeing",
            "Disagreeing.Get: two services disagree on `Get`, and one method can't be both: `checks.greet.A`"
            " (greet.proto:6): the proto says `rpc Get(HelloRequest) returns (HelloReply)`; `checks.greet.B`"
            " (greet.proto:6): the proto says `rpc Get(HelloRequest) returns (Outer.Inner)`"
            f" {PLACES} → implement the two services in two classes and deploy both",
        ),
    ],
)
def test_message(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_of(name, monkeypatch) == expected


def test_message_without_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    text = problem_of("NoBase", monkeypatch)
    assert text.startswith("NoBase: the class inherits from no generated service base")
    assert "(wrong_classes.py:LINE) → generate code with `sdk codegen`" in text


def test_unknown_name_says_where_to_import_it() -> None:
    request, _ = check(wrong_classes.UnknownNames)
    assert "`Unknown` can't be found at run time, import it outside `if TYPE_CHECKING:`" in request.remedy


def test_problems_come_in_the_order_of_the_proto() -> None:
    assert [problem.subject for problem in check(wrong_classes.TwoMissing)] == ["TwoMissing.Get", "TwoMissing.Put"]


def test_code_location_is_the_line_of_def(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE.parent)
    path, _, line = check(wrong_classes.Decorated)[0].code_location.rpartition(":")
    assert path == "contract/wrong_classes.py"
    assert "async def SayHello" in (HERE / "wrong_classes.py").read_text().splitlines()[int(line) - 1]


def test_names_of_a_function_are_found() -> None:
    local = right_classes.local_class()
    (problem,) = check(local)
    assert problem.rule == "request-type", "the cell of LocalReply is read; LocalRequest is no cell of the method"
    assert "`LocalRequest`" in problem.remedy


def test_batched_method_is_compared_by_its_items() -> None:
    # Imported here: Ray Serve takes a second, and no other check needs it.
    from batched_classes import Batched, BatchedWrong

    assert check(Batched) == []
    assert [problem.rule for problem in check(BatchedWrong)] == ["request-type"]
    (method,) = define(Batched, {}).services[0].methods
    assert kind_of(getattr(Batched(), method.python_name)) == (True, False)


def test_define_raises_every_problem() -> None:
    with pytest.raises(DefinitionError, match="EverythingWrong does not fit its service: 3 problems") as raised:
        define(wrong_classes.EverythingWrong, {})
    assert [problem.rule for problem in raised.value.problems] == ["extra-parameter", "request-type", "response-type"]


def test_definition_tells_what_the_class_implements() -> None:
    definition = define(right_classes.AllServices, {"num_replicas": 2})
    assert definition.cls_name == "AllServices"
    assert [service.name for service in definition.services] == ["Greeter", "Downloader", "Uploader", "Talker"]
    assert [shim.service for shim in definition.shims] == list(definition.services)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Decorated", (True, False)),
        ("Static", (True, False)),
        ("PartialMethod", (True, False)),
        ("Sync", (False, False)),
        ("DecoratedWithoutWraps", (False, False)),
        ("AsyncGeneratorStream", (True, True)),
    ],
)
def test_handler_kind(name: str, expected: tuple[bool, bool]) -> None:
    cls = getattr(right_classes, name)
    (method,) = define(cls, {}).services[0].methods
    assert kind_of(getattr(cls(), method.python_name)) == expected


def test_definition_is_immutable() -> None:
    options = {"num_replicas": 2}
    definition = define(right_classes.Async, options)
    options["num_replicas"] = 3
    assert dict(definition.options) == {"num_replicas": 2}
    assert hash(definition)
    with pytest.raises(TypeError):
        definition.options["num_replicas"] = 4  # type: ignore[index]  # that it is refused is the point
    with pytest.raises(AttributeError):
        definition.cls_name = "Other"  # type: ignore[misc]  # that it is refused is the point


def test_unannotated_methods() -> None:
    (problem,) = unannotated(right_classes.Unannotated)
    assert isinstance(problem, Problem)
    assert (problem.rule, problem.subject) == ("unannotated", "Unannotated.SayHello")
    assert problem.message.startswith("`SayHello` does not annotate `request` and the response;")
    assert unannotated(right_classes.Async) == []
