"""`docs/checks.md` has every rule, and its examples have the outputs that it shows."""

from __future__ import annotations

import batched_classes  # noqa: F401  # registers its classes in the tables
import pytest
import wrong_classes  # noqa: F401
import wrong_wrapped  # noqa: F401
from checks_document import Example, examples, output_of
from compatibility_cases import CASES, FILES
from tables import WRONG

EXAMPLES = examples()
CLASSES = {rule for case in WRONG for rule, _ in case.expected}
ELSEWHERE = {"unannotated", "not-decorated", "interceptor", "sync-interceptor"}
CHANGES = {line.split()[1] for case in (*CASES, *FILES) for line in case.expected}


def test_every_rule_is_there() -> None:
    assert sorted(each.rule for each in EXAMPLES if each.kind == "python") == sorted(CLASSES | ELSEWHERE)
    assert sorted(each.rule for each in EXAMPLES if each.kind == "diff") == sorted(CHANGES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.rule)
def test_example(example: Example) -> None:
    given = output_of(example)
    assert f"[{example.rule}]" in given
    assert given == example.given
