"""The pytest plugin: the fixture ``grpc_serve``. It is found by itself wherever the SDK is installed.

Loaded by every run of pytest, so nothing is imported here before the fixture is used. ``-p no:sdk.pytest_plugin`` turns
it off.
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
    """Serve applications for one test: takes what :func:`sdk.testing.serve` takes, and returns the running server.

    It may be called several times. What it started ends with the test.

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
