# mypy: ignore-errors
"""Classes that fit and classes that do not, noted by decorators where they are written."""

from __future__ import annotations

from typing import NamedTuple

RIGHT: list[type] = []
WRONG: list[Wrong] = []


class Wrong(NamedTuple):
    """A class that does not fit; ``expected`` holds the rule and the subject of each of its problems."""

    cls: type
    expected: list[tuple[str, str]]


def right(cls):
    RIGHT.append(cls)
    return cls


def wrong(*expected):
    """Note a class with the problems that it must have in their order, `"rule rpc"` each, without RPC for the class."""

    def note(cls):
        pairs = [tuple(problem.split(" ")) for problem in expected]
        WRONG.append(Wrong(cls, [(rule, ".".join(filter(None, (cls.__name__, rpc)))) for rule, rpc in pairs]))
        return cls

    return note
