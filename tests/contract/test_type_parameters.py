# mypy: ignore-errors
"""Generic aliases and type parameters in annotations: PEP 695, and what typing_extensions has of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import TypeVar

import pytest
from typing_extensions import TypeAliasType

from sdk._contract.class_rules import check_class
from tests.contract.greet_code import Downloader, Greeter
from tests.contract.greet_code import HelloReply as Reply
from tests.contract.greet_code import HelloRequest as Request

T = TypeVar("T")
Stream = TypeAliasType("Stream", AsyncIterator[T], type_params=(T,))
Itself = TypeAliasType("Itself", T, type_params=(T,))

NAMES = {"Greeter": Greeter, "Downloader": Downloader, "Request": Request, "Reply": Reply}
new_syntax = pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 came with Python 3.12")


def problems(cls: type) -> list[str]:
    return [f"{problem.rule} {problem.subject}" for problem in check_class(cls)]


def handler(source: str) -> type:
    """Return the class ``Handler`` of a module with this source."""
    module = ModuleType("module_with_type_parameters")
    vars(module).update(NAMES, AsyncIterator=AsyncIterator)
    exec(compile(source, "<test>", "exec", dont_inherit=True), vars(module))
    return vars(module)["Handler"]


class Unary(Greeter):
    async def SayHello(self, request: Itself[Request]) -> Itself[Reply]: ...


class WrongUnary(Greeter):
    async def SayHello(self, request: Itself[Request]) -> Itself[Request]: ...


class Streaming(Downloader):
    async def Down(self, request: Request) -> Stream[Reply]:
        yield Reply()


class WrongStreaming(Downloader):
    async def Down(self, request: Request) -> Stream[Request]:
        yield request


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Unary, []),
        (WrongUnary, ["response-type WrongUnary.SayHello"]),
        (Streaming, []),
        (WrongStreaming, ["response-type WrongStreaming.Down"]),
    ],
)
def test_generic_aliases_of_typing_extensions(cls: type, expected: list[str]) -> None:
    assert problems(cls) == expected


ALIASES = """
type Answer = {answer}
type Answers[T] = AsyncIterator[T]

class Handler(Greeter, Downloader):
    async def SayHello(self, request: Request) -> Answer: ...
    async def Down(self, request: Request) -> Answers[{answer}]:
        yield
"""


@new_syntax
@pytest.mark.parametrize("first", ["", "from __future__ import annotations\n"])
def test_type_statements(first: str) -> None:
    assert problems(handler(first + ALIASES.format(answer="Reply"))) == []
    assert problems(handler(first + ALIASES.format(answer="Request"))) == [
        "response-type Handler.SayHello",
        "response-type Handler.Down",
    ]


PARAMETERS = """
class Base[R: {bound}](Greeter):
    async def SayHello(self, request: Request) -> R: ...

class Handler(Base[{bound}]): ...
"""


@new_syntax
@pytest.mark.parametrize("first", ["", "from __future__ import annotations\n"])
def test_type_parameters_of_a_class(first: str) -> None:
    assert problems(handler(first + PARAMETERS.format(bound="Reply"))) == []
    assert problems(handler(first + PARAMETERS.format(bound="Request"))) == ["response-type Handler.SayHello"]


@new_syntax
def test_a_type_statement_of_a_name_that_only_type_checkers_have() -> None:
    source = ALIASES.format(answer="Reply").replace("Answer = Reply", "Answer = Missing")
    assert problems(handler(source)) == ["response-type Handler.SayHello"]
