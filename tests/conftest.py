"""One Ray cluster and one ingress for the whole test session."""

from __future__ import annotations

import asyncio
import atexit
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from cluster import Ingress, free_port, set_import_path

# A shell that starts us in the background, or nohup, lets us ignore these, and so would every command of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Ray asks for this thread's event loop. One that asyncio makes for it would be dropped, unclosed, by the first
# `asyncio.run` of any test.
_loop = asyncio.new_event_loop()
atexit.register(_loop.close)
asyncio.set_event_loop(_loop)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests share a worker of pytest-xdist, and begin with those that take longest.

    One worker has the session's cluster. Those that start a Ray of their own run one after the other on another. The
    tests of any other module stay together, with their fixtures.
    """
    groups = {item: _group(item) for item in items}
    items.sort(key=lambda item: (*_FIRST, groups[item]).index(groups[item]))  # stable
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))


_FIRST = ("own_ray", "cluster")


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("own_ray") is not None:
        return "own_ray"
    return "cluster" if "ray_cluster" in getattr(item, "fixturenames", ()) else str(item.path)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    import ray

    # Workers inherit the environment of the processes that Ray starts now.
    set_import_path()
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ingress(ray_cluster: None) -> Iterator[Ingress]:
    import sdk

    port = free_port()
    # Interop sends messages of 100 MB.
    sdk.start(sdk.GrpcOptions(port=port, max_receive_message_length=128 << 20))
    yield Ingress(f"127.0.0.1:{port}", port)
    sdk.shutdown()


@pytest.fixture
def channel(ingress: Ingress) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(ingress.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def deploy(ingress: Ingress) -> Iterator[Callable[[Any, str], None]]:
    """Run an application; it is deleted at the end of the module."""
    import sdk
    from sdk.serve.run import delete

    names: list[str] = []

    def run(app: Any, name: str) -> None:
        if name not in names:
            names.append(name)
        sdk.run(app, name=name)

    yield run
    with ThreadPoolExecutor() as threads:
        list(threads.map(delete, names))
