# ruff: noqa
"""Class shapes with the syntax of Python 3.12, PEP 695."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shapes_pb2 import Ask, Reply
from shapes_sdk import ListerBase, OneBase

type Answer = Reply
type Another = Ask
type Stream[T] = AsyncIterator[T]


# == Type parameters of Python 3.12


class OfATypeStatement(OneBase):
    """`Get(…) -> Answer`, where `type Answer = Reply`"""

    async def Get(self, request: Ask) -> Answer:
        return Reply(text=request.text)


class OfATypeStatementOfAnother(OneBase):
    """`Get(…) -> Another`, where `type Another = Ask`"""

    async def Get(self, request: Ask) -> Another:
        return request


class OfAGenericTypeStatement(ListerBase):
    """`List(…) -> Stream[Reply]` with `yield`, where `type Stream[T] = AsyncIterator[T]`"""

    async def List(self, request: Ask) -> Stream[Reply]:
        yield Reply(text=request.text)
        yield Reply(text=request.text)


class OfAGenericTypeStatementOfAnother(ListerBase):
    """`List(…) -> Stream[Ask]` with `yield`"""

    async def List(self, request: Ask) -> Stream[Ask]:
        yield request


class Base[R: Reply](OneBase):
    def make(self, text: str) -> R:
        raise NotImplementedError

    async def Get(self, request: Ask) -> R:
        return self.make(request.text)


class OfATypeParameter(Base[Reply]):
    """`class Base[R: Reply](OneBase)` with `Get(…) -> R`"""

    def make(self, text: str) -> Reply:
        return Reply(text=text)


class OfAMethodsTypeParameter(OneBase):
    """`async def Get[A: Ask](self, request: A) -> Reply`"""

    async def Get[A: Ask](self, request: A) -> Reply:
        return Reply(text=request.text)


class OfAMethodsTypeParameterOfAnother(OneBase):
    """`async def Get[A: Reply](self, request: A) -> Reply`

    What is passed does not depend on annotations. Type checkers do not compare such a parameter with that of the base."""

    async def Get[A: Reply](self, request: A) -> Reply:
        return Reply(text=request.text)
