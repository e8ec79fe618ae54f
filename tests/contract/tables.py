# mypy: ignore-errors
"""Tables of classes that fit and classes that do not, filled by decorators."""

from __future__ import annotations

from typing import NamedTuple

RIGHT: list[type] = []
WRONG: list[Wrong] = []


class Wrong(NamedTuple):
    """A class that does not fit; ``expected`` has the rule and the subject of each of its problems."""

    cls: type
    expected: list[tuple[str, str]]


def right(cls):
    RIGHT.append(cls)
    return cls


def wrong(*expected):
    """Register a class with its expected problems in order, each `"rule rpc"`, or `"rule"` for one of the class."""

    def note(cls):
        pairs = [tuple(problem.split(" ")) for problem in expected]
        WRONG.append(Wrong(cls, [(rule, ".".join(filter(None, (cls.__name__, rpc)))) for rule, rpc in pairs]))
        return cls

    return note
