"""The pytest plugin of the SDK: the fixture ``grpc_serve``. ``conftest.py`` loads it with one line.

::

    pytest_plugins = ["sdk.pytest_plugin"]

It is not an entry point: pytest would load it in every project of an environment, and would not start in one that has a
package ``sdk`` itself. Every run imports this module, so it imports the SDK only when the fixture is used. See
https://docs.pytest.org/en/stable/how-to/plugins.html.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sdk.options import GrpcOptions
    from sdk.testing import Server


@pytest.fixture
def grpc_serve() -> Iterator[Callable[..., Server]]:
    """Serve applications for one test.

    The fixture is a function with the arguments of :func:`sdk.testing.serve` that returns the running server. A test
    may call it several times; its servers stop at the end of the test.

    Example:
        ::

            def test_it_greets(grpc_serve):
                client = grpc_serve(Greeter.bind("hi")).client(GreeterSyncClient)
                assert client.SayHello(HelloRequest(name="you")).text == "hi you"
    """
    from sdk.testing import serve

    with contextlib.ExitStack() as stack:

        def start(*applications: Any, options: GrpcOptions | None = None, tls: bool = False, **named: Any) -> Server:
            return stack.enter_context(serve(*applications, options=options, tls=tls, **named))

        yield start
