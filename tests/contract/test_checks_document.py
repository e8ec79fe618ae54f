"""`docs/reference/checks.md` has every rule, and its examples have the outputs that it shows."""

from __future__ import annotations

import pytest

from tests.contract import (
    batched_classes,  # noqa: F401  # registers its classes in the tables
    wrong_classes,  # noqa: F401
    wrong_wrapped,  # noqa: F401
)
from tests.contract.checks_document import Example, examples, output_of
from tests.contract.tables import WRONG
from tests.protos.buf_pairs import PAIRS
from tests.protos.compatibility_cases import CASES, FILES

EXAMPLES = examples()
CLASSES = {rule for case in WRONG for rule, _ in case.expected}
ELSEWHERE = {"unannotated", "not-decorated", "interceptor", "sync-interceptor", "allow", "validate"}
CHANGES = {line.split()[1] for case in (*CASES, *FILES) for line in case.expected}
CHANGES |= {line.split()[1] for pair in PAIRS for line in pair.ours}


def test_every_rule_is_documented() -> None:
    assert sorted(each.rule for each in EXAMPLES if each.kind == "python") == sorted(CLASSES | ELSEWHERE)
    assert sorted(each.rule for each in EXAMPLES if each.kind == "diff") == sorted(CHANGES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.rule)
def test_example_output(example: Example) -> None:
    given = output_of(example)
    assert f"[{example.rule}]" in given
    assert given == example.given
