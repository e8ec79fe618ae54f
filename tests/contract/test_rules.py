from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sdk._contract.definition import define
from sdk._contract.methods import kind_of
from sdk._contract.rules import check, unannotated
from sdk.errors import DefinitionError, Problem
from tests.contract import (
    right_classes,
    right_wrapped,  # noqa: F401  # notes its classes in the table
    wrong_classes,
    wrong_table,
)
from tests.contract.tables import RIGHT, WRONG

HERE = Path(__file__).parent
REPO = HERE.parents[1]
SECTIONS = wrong_table.sections()


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.cls.__name__)
def test_wrong_class(case: Any) -> None:
    """Exactly these problems: rule, RPC, both places, message and remedy."""
    assert [(problem.rule, problem.subject) for problem in check(case.cls)] == case.expected
    assert wrong_table.section_of(case) == SECTIONS[case.cls.__name__]


@pytest.mark.parametrize("cls", RIGHT, ids=lambda cls: cls.__name__)
def test_right_class(cls: type) -> None:
    assert check(cls) == []
    assert unannotated(cls) is not None  # and nothing in it makes the other check stumble


def test_enough_of_both() -> None:
    assert len(WRONG) >= 100
    assert len(RIGHT) >= 100
    assert sorted(case.cls.__name__ for case in WRONG) == sorted(SECTIONS), "the table has no other sections"


def test_every_rule_has_a_wrong_class() -> None:
    source = "".join(
        (HERE.parents[1] / "sdk" / "_contract" / name).read_text() for name in ("rules.py", "signatures.py")
    )
    rules = {*re.findall(r'problem\(\s*"([a-z-]+)"|Problem\(\s*"([a-z-]+)"', source)}
    known = {rule for pair in rules for rule in pair if rule}
    known |= {f"{side}-{rule}" for side in ("request", "response") for rule in ("type", "stream")}
    assert {rule for case in WRONG for rule, _ in case.expected} == known - {"unannotated"}


def test_a_problem_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    (problem,) = check(wrong_classes.PerhapsNone)
    line = problem.code_location.rpartition(":")[2]
    assert str(problem) == (
        "PerhapsNone.SayHello: `SayHello` returns `HelloReply | None`; the proto says `rpc SayHello(HelloRequest)"
        f" returns (HelloReply)` (wrong_classes.py:{line}, greet.proto:6) → annotate it as `HelloReply`"
    )


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
    from tests.contract.batched_classes import Batched, BatchedWrong

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
