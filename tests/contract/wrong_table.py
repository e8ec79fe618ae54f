"""The problems of every wrong class as a text, with the source lines that they point to instead of line numbers.

``python tests/contract/wrong_table.py`` rewrites ``wrong_classes.txt``; review the diff.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdk._contract.class_rules import check_class
from sdk.errors import Problem
from tests.contract import (
    batched_classes,  # noqa: F401  # registers its classes in the tables
    wrong_classes,  # noqa: F401
    wrong_wrapped,  # noqa: F401
)
from tests.contract.tables import WRONG

HERE = Path(__file__).parent
TABLE = HERE / "wrong_classes.txt"


def line_of(problem: Problem) -> str:
    """Return the source line that a problem points to."""
    file, _, number = problem.code_location.rpartition(":")
    return (HERE / Path(file).name).read_text().splitlines()[int(number) - 1].strip()


def text_of(problem: Problem) -> str:
    """Return a problem as four lines of text."""
    return "\n".join(
        [
            f"{problem.rule} {problem.subject} ({problem.proto_location or 'no proto'})",
            f"    code    {line_of(problem)}",
            f"    message {problem.message}",
            f"    remedy  {problem.remedy}",
        ]
    )


def section_of(case: Any) -> str:
    """Return the section of one wrong class."""
    return "\n".join([f"== {case.cls.__name__}", *map(text_of, check_class(case.cls))])


def sections() -> dict[str, str]:
    """Return the sections of the stored table by the name of their class."""
    texts = TABLE.read_text().split("== ")[1:]
    return {text.partition("\n")[0]: f"== {text.rstrip()}" for text in texts}


if __name__ == "__main__":
    TABLE.write_text(
        "\n\n".join(section_of(case) for case in sorted(WRONG, key=lambda case: case.cls.__module__)) + "\n"
    )
