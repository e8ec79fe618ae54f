"""Methods that pass the checks of parameters can be called as the wire server calls them; the others can't."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from sdk._contract.effective_signature import signature_of, takes_context
from sdk._contract.implementations import find_implementation, generated_bases
from sdk._wire.answering import send_stream
from sdk._wire.route import Route
from sdk.errors import RpcError
from sdk.service import Method, MethodBinding, Shim
from tests.contract import (
    right_classes,  # noqa: F401  # registers its classes in the table
    right_wrapped,
    wrong_classes,
    wrong_wrapped,  # noqa: F401
)
from tests.contract.tables import RIGHT, WRONG

# Python 3.13 warns on a call of a partial that is a class attribute; from 3.14 on it is bound like a function.
pytestmark = pytest.mark.filterwarnings("ignore:functools.partial will be a method descriptor:FutureWarning")

CALLED = [cls for cls in RIGHT if not cls.__module__.endswith(".batched_classes")]
UNCALLABLE = [case.cls for case in WRONG if {rule for rule, _ in case.expected} & {"parameters", "extra-parameter"}]

WRAPPED = [case.cls for case in WRONG if {rule for rule, _ in case.expected} == {"wrapper"}]


def methods_of(cls: type) -> list[Method]:
    shims: list[type[Shim]] = [vars(base)["__grpc_shim__"] for base in generated_bases(cls)]
    return [method for shim in shims for method in shim.service.methods]


def call(cls: type, method: Method) -> Any:
    """Call a method as the wire server does, far enough that Python has bound every argument."""
    handler = getattr(cls(), method.python_name)
    route = Route(MethodBinding(method, handler))
    request = iter(()) if method.cardinality.client_streaming else method.request()
    result = handler(request, **({"grpc_context": "a context"} if route.takes_context else {}))
    if inspect.iscoroutine(result):
        try:
            result = asyncio.run(result)
        except AttributeError as error:  # the messages of these tests have no fields
            assert "name" in str(error)  # noqa: PT017
    if inspect.isgenerator(result):
        result.close()
    return result


@pytest.mark.filterwarnings("ignore:say something else:DeprecationWarning")
@pytest.mark.parametrize("cls", CALLED, ids=lambda cls: cls.__name__)
def test_a_right_class_can_be_called(cls: type) -> None:
    for method in methods_of(cls):
        call(cls, method)


@pytest.mark.parametrize("cls", UNCALLABLE, ids=lambda cls: cls.__name__)
def test_a_class_with_wrong_parameters_can_not_be_called(cls: type) -> None:
    (method,) = methods_of(cls)
    with pytest.raises(TypeError, match=r"argument|takes|parameter"):
        call(cls, method)


@pytest.mark.parametrize("cls", WRAPPED, ids=lambda cls: cls.__name__)
def test_every_call_of_a_class_with_a_wrong_decorator_fails(cls: type) -> None:
    (method,) = methods_of(cls)
    route: Any = Route(MethodBinding(method, getattr(cls(), method.python_name)))
    no_call: Any = None  # it fails before the first message
    with pytest.raises((TypeError, RpcError), match=r"unhashable|can't be used in 'await'|a stream of"):
        asyncio.run(send_stream(no_call, route, call(cls, method)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Preserved", True),
        ("GivenASession", False),
        ("GivenASessionAndTheContext", True),
        ("Traced", True),
        ("RetriedByAnObject", True),
        ("GivenByADescriptor", False),
        ("ContextAmongKeywords", True),
        ("StarArguments", False),
        ("Mocked", False),
    ],
)
def test_takes_context(name: str, expected: bool) -> None:
    cls = getattr(right_wrapped, name)
    assert takes_context(getattr(cls(), "SayHello")) is expected  # noqa: B009  # the generated base names the attribute
    implementation = find_implementation(cls, "SayHello")
    assert implementation is not None
    assert implementation.takes_context is expected


def test_takes_context_without_a_known_signature() -> None:
    assert signature_of(dict.fromkeys) is None or takes_context(dict.fromkeys) is False
    assert takes_context(type("C", (), {"m": lambda: None})().m) is False, "no room for self"
    assert takes_context(wrong_classes.Value) is False
