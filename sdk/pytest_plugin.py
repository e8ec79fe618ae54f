"""The pytest plugin of the SDK: the fixture ``grpc_serve``. ``conftest.py`` loads it with one line.

::

    pytest_plugins = ["sdk.pytest_plugin"]

It is not an entry point: pytest would load it in every project of an environment, and would not start in one that has a
package ``sdk`` itself. Every run imports this module, so it imports the SDK only when the fixture is used. See
https://docs.pytest.org/en/stable/how-to/plugins.html.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sdk.options import GrpcOptions
    from sdk.testing import Server

# Classes whose generated code was compared with its protos in this run.
_compared: set[type] = set()


@pytest.fixture
def grpc_serve() -> Iterator[Callable[..., Server]]:
    """Serve applications for one test.

    The fixture is a function with the arguments of :func:`sdk.testing.serve` that returns the running server. A test
    may call it several times; its servers stop at the end of the test. It warns, once for each, of protos that were
    edited after ``sdk codegen`` generated the code of the applications.

    Example:
        ::

            def test_it_greets(grpc_serve):
                client = grpc_serve(Greeter.bind("hi")).client(GreeterSyncClient)
                assert client.SayHello(HelloRequest(name="you")).text == "hi you"
    """
    from sdk.testing import serve

    with contextlib.ExitStack() as stack:

        def start(*applications: Any, options: GrpcOptions | None = None, tls: bool = False, **named: Any) -> Server:
            _warn_of_changed_protos((*applications, *named.values()))
            return stack.enter_context(serve(*applications, options=options, tls=tls, **named))

        yield start


def _warn_of_changed_protos(applications: Iterable[Any]) -> None:
    from sdk._contract.definition import definition_of
    from sdk._serve.deployed_classes import deployed_classes, is_application
    from sdk.cli.changed_protos import changed_protos

    classes = dict.fromkeys(
        cls
        for each in applications
        for cls in (deployed_classes(each) if is_application(each) else (type(each),))
        if definition_of(cls) is not None
    )
    new = [cls for cls in classes if cls not in _compared]
    _compared.update(new)
    for changed in changed_protos(new, only_newer=True):
        warnings.warn(str(changed), stacklevel=3)
