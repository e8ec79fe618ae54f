from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sdk._contract.class_rules import check_class, find_unannotated
from sdk._contract.definition import define
from sdk._contract.implementations import handler_kind
from sdk.errors import DefinitionError, Problem
from tests.contract import (
    right_classes,
    right_wrapped,  # noqa: F401  # registers its classes in the table
    wrong_classes,
    wrong_table,
)
from tests.contract.tables import RIGHT, WRONG

HERE = Path(__file__).parent
REPO = HERE.parents[1]
SECTIONS = wrong_table.sections()


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.cls.__name__)
def test_wrong_class(case: Any) -> None:
    """The class has exactly these problems: rule, RPC, both locations, message and remedy."""
    assert [(problem.rule, problem.subject) for problem in check_class(case.cls)] == case.expected
    assert wrong_table.section_of(case) == SECTIONS[case.cls.__name__]


@pytest.mark.parametrize("cls", RIGHT, ids=lambda cls: cls.__name__)
def test_right_class(cls: type) -> None:
    assert check_class(cls) == []
    assert find_unannotated(cls) is not None  # the other check handles each of them too


def test_there_are_100_classes_of_each() -> None:
    assert len(WRONG) >= 100
    assert len(RIGHT) >= 100
    assert sorted(case.cls.__name__ for case in WRONG) == sorted(SECTIONS), "the table has no other sections"


def test_every_rule_has_a_wrong_class() -> None:
    source = "".join(
        (HERE.parents[1] / "sdk" / "_contract" / name).read_text()
        for name in ("class_rules.py", "signature_rules.py", "wrapper_rules.py")
    )
    rules = {*re.findall(r'problem\(\s*"([a-z-]+)"|Problem\(\s*"([a-z-]+)"', source)}
    known = {rule for pair in rules for rule in pair if rule}
    known |= {f"{side}-{rule}" for side in ("request", "response") for rule in ("type", "stream")}
    assert {rule for case in WRONG for rule, _ in case.expected} == known - {"unannotated"}


def test_a_problem_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    (problem,) = check_class(wrong_classes.PerhapsNone)
    line = problem.code_location.rpartition(":")[2]
    assert str(problem) == (
        "PerhapsNone.SayHello: `SayHello` returns `HelloReply | None`; the proto says `rpc SayHello(HelloRequest)"
        f" returns (HelloReply)` (wrong_classes.py:{line}, greet.proto:6) → annotate it as `HelloReply`"
    )


def test_remedy_for_an_unresolved_name() -> None:
    request, _ = check_class(wrong_classes.UnknownNames)
    assert "`Unknown` can't be resolved at run time: import it outside `if TYPE_CHECKING:`" in request.remedy


def test_problems_come_in_the_order_of_the_proto() -> None:
    assert [problem.subject for problem in check_class(wrong_classes.TwoMissing)] == [
        "TwoMissing.Get",
        "TwoMissing.Put",
    ]


def test_code_location_is_the_line_of_def(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE.parent)
    path, _, line = check_class(wrong_classes.Decorated)[0].code_location.rpartition(":")
    assert path == "contract/wrong_classes.py"
    assert "async def SayHello" in (HERE / "wrong_classes.py").read_text().splitlines()[int(line) - 1]


def test_batched_method_is_compared_by_its_items() -> None:
    # Imported here: importing Ray Serve takes a second, and no other test needs it.
    from tests.contract.batched_classes import Batched, BatchedWrong

    assert check_class(Batched) == []
    assert [problem.rule for problem in check_class(BatchedWrong)] == ["request-type"]
    (method,) = define(Batched, {}).services[0].methods
    assert handler_kind(getattr(Batched(), method.python_name)) == (True, False)


def test_define_raises_every_problem() -> None:
    with pytest.raises(DefinitionError, match="EverythingWrong does not fit its service: 3 problems") as raised:
        define(wrong_classes.EverythingWrong, {})
    assert [problem.rule for problem in raised.value.problems] == ["extra-parameter", "request-type", "response-type"]


def test_definition_has_the_services_of_the_class() -> None:
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
    assert handler_kind(getattr(cls(), method.python_name)) == expected


def test_definition_is_immutable() -> None:
    options = {"num_replicas": 2}
    definition = define(right_classes.Async, options)
    options["num_replicas"] = 3
    assert dict(definition.options) == {"num_replicas": 2}
    assert hash(definition)
    with pytest.raises(TypeError):
        definition.options["num_replicas"] = 4  # type: ignore[index]  # the refusal is tested
    with pytest.raises(AttributeError):
        definition.cls_name = "Other"  # type: ignore[misc]  # the refusal is tested


def test_unannotated_methods() -> None:
    (problem,) = find_unannotated(right_classes.Unannotated)
    assert isinstance(problem, Problem)
    assert (problem.rule, problem.subject) == ("unannotated", "Unannotated.SayHello")
    assert problem.message.startswith("`SayHello` does not annotate `request` and the response;")
    assert find_unannotated(right_classes.Async) == []
