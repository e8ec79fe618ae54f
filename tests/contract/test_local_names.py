# mypy: ignore-errors
"""Annotations with names that exist at run time only in a function, in a class, further down, or not at all."""

from __future__ import annotations

import importlib.util
import linecache
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sdk._contract.class_rules import check_class
from sdk._contract.source_names import names_around
from tests.contract import greet_code

HEAD = """
from __future__ import annotations
from typing import TYPE_CHECKING, Any, NewType
from tests.contract import greet_code
from tests.contract.greet_code import Greeter, HelloReply, HelloRequest
"""
METHOD = "async def SayHello(self, request: HelloRequest) -> {}: ..."

# Each has the one message class that its annotation means in place of ANSWER.
SCOPES = {
    "imported by the function": """
def make():
    from tests.contract.greet_code import ANSWER as R
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "imported by the function under the name of another": """
def make():
    from tests.contract.greet_code import HelloRequest as Q, ANSWER as OtherReply
    class Handler(Greeter):
        async def SayHello(self, request: Q) -> OtherReply: ...
    return Handler
from tests.contract.greet_code import OtherReply
""",
    "imported by the function for type checkers": """
def make():
    if TYPE_CHECKING:
        from tests.contract.greet_code import ANSWER as R
    else:
        R = Any
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "imported by a function around the function": """
def outer():
    from tests.contract.greet_code import ANSWER as R
    def make():
        class Handler(Greeter):
            async def SayHello(self, request: HelloRequest) -> R | None if False else R: ...
        return Handler
    return make()
def make():
    return outer()
""",
    "an alias in the function": """
def make():
    R = greet_code.ANSWER
    Rs = R
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> Rs: ...
    return Handler
""",
    "a new type in the function": """
def make():
    R = NewType("R", greet_code.ANSWER)
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "in a closure": """
def make():
    R = greet_code.ANSWER
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R:
            return R()
    return Handler
""",
    "with a decorator": """
import functools
def traced(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)
    return wrapper
def make():
    from tests.contract.greet_code import ANSWER as R
    class Handler(Greeter):
        @traced
        @traced
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "a lambda around the class": """
def named(R):
    class Handler(Greeter):
        from tests.contract.greet_code import ANSWER as R
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
make = lambda: named(HelloRequest)
""",
    "in the body of the class": """
class Handler(Greeter):
    HelloReply = greet_code.ANSWER
    async def SayHello(self, request: HelloRequest) -> HelloReply: ...
""",
    "in the body of the class for type checkers": """
class Handler(Greeter):
    if TYPE_CHECKING:
        from tests.contract.greet_code import ANSWER as R
    async def SayHello(self, request: HelloRequest) -> R: ...
""",
    "further down in the module": """
class Handler(Greeter):
    async def SayHello(self, request: HelloRequest) -> R: ...
PROBLEMS = check_class(Handler)
from tests.contract.greet_code import ANSWER as R
""",
    "an alias further down in the module": """
class Handler(Greeter):
    async def SayHello(self, request: HelloRequest) -> R: ...
PROBLEMS = check_class(Handler)
R = "greet_code.ANSWER"
""",
    "deleted": """
from tests.contract.greet_code import ANSWER as R
class Handler(Greeter):
    async def SayHello(self, request: HelloRequest) -> R: ...
del R
""",
    "imported with all others for type checkers": """
if TYPE_CHECKING:
    from module_of_answers import *
class Handler(Greeter):
    async def SayHello(self, request: HelloRequest) -> R: ...
""",
}

# Their values are not known before a call, so they fit.
UNKNOWN = {
    "a parameter": """
def make(R=HelloReply):
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "one of several": """
def make():
    if greet_code:
        from tests.contract.greet_code import HelloReply as R
    else:
        from tests.contract.greet_code import OtherReply as R
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "looked up by a call": """
def make():
    R = vars(greet_code)["HelloReply"]
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "one of many": """
def make():
    for R, _ in [(HelloReply, 1)]:
        class Handler(Greeter):
            async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
""",
    "an attribute of the class around it": """
class Outer:
    R = HelloReply
    class Inner(Greeter):
        async def SayHello(self, request: HelloRequest) -> Outer.R: ...
    PROBLEMS = check_class(Inner)
PROBLEMS = Outer.PROBLEMS
""",
    "an item of a local generic": """
def make():
    class Box:
        pass
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> Box[HelloReply]: ...
    return Handler
""",
}


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return the problems of the class ``Handler`` in a module with this source, as ``"rule RPC: message"``."""

    def of(source: str) -> list[str]:
        path = tmp_path / "local_names.py"
        path.write_text(HEAD + source)
        linecache.clearcache()
        spec = importlib.util.spec_from_file_location("local_names", path)
        module = importlib.util.module_from_spec(spec)
        module.check_class = check_class
        monkeypatch.setitem(sys.modules, "local_names", module)
        spec.loader.exec_module(module)
        if "PROBLEMS" in vars(module):
            found = module.PROBLEMS
        else:
            found = check_class(module.make() if "make" in vars(module) else module.Handler)
        return [f"{each.rule}: {each.message.partition(';')[0]}" for each in found]

    return of


@pytest.mark.parametrize("answer", ["HelloReply", "HelloRequest"])
@pytest.mark.parametrize("source", SCOPES.values(), ids=SCOPES)
def test_a_name_means_what_type_checkers_take_it_for(
    problems, source: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ModuleType("module_of_answers")
    answers.R = getattr(greet_code, answer)
    monkeypatch.setitem(sys.modules, "module_of_answers", answers)
    found = problems(source.replace("ANSWER", answer))
    assert [each.partition(":")[0] for each in found] == ([] if answer == "HelloReply" else ["response-type"])


@pytest.mark.parametrize("source", UNKNOWN.values(), ids=UNKNOWN)
def test_a_name_whose_value_is_not_known_fits(problems, source: str) -> None:
    assert problems(source) == []


def test_a_name_that_nothing_binds_does_not_fit(problems) -> None:
    source = "class Handler(Greeter):\n    async def SayHello(self, request: HelloRequest) -> Nothing: ...\n"
    assert problems(source) == ["response-type: `SayHello` returns `Nothing`"]


def test_the_class_itself_does_not_fit(problems) -> None:
    source = (
        "class Handler(Greeter):\n    async def SayHello(self, request: HelloRequest) -> Handler: ...\n"
        "    __init_subclass__ = None\nPROBLEMS = check_class(Handler)\n"
    )
    assert problems(source) == ["response-type: `SayHello` returns `Handler`"]


def test_a_method_with_the_name_of_a_message_is_not_meant(problems) -> None:
    source = (
        "from tests.contract.greet_code import UNARY, make_base\n"
        "class Handler(make_base('N', ('HelloReply', UNARY))):\n"
        "    async def HelloReply(self, request: HelloRequest) -> HelloReply: ...\n"
    )
    assert problems(source) == []


def test_a_decorated_class_in_a_function_can_be_defined(problems) -> None:
    source = """
from sdk import grpc_deployment
def make():
    from tests.contract.greet_code import HelloReply as R
    @grpc_deployment
    class Handler(Greeter):
        async def SayHello(self, request: "HelloRequest") -> "R": ...
    return Handler
"""
    assert problems(source) == []


def test_no_code_is_run_again(problems, capsys: pytest.CaptureFixture[str]) -> None:
    source = """
def make():
    R = print("once") or HelloReply
    class Handler(Greeter):
        async def SayHello(self, request: HelloRequest) -> R: ...
    return Handler
"""
    assert problems(source) == []
    assert capsys.readouterr().out == "once\n"


def test_without_its_source_a_function_has_no_names_around_it() -> None:
    module = ModuleType("without_source")
    exec("def function(): ...", vars(module))
    assert names_around(vars(module)["function"]) == ({}, {})
    assert names_around(len) == ({}, {})
