"""One Ray cluster and one ingress for the whole test session."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "examples" / "guide"
IMPORTED_BY_REPLICAS = (HERE, GUIDE)

for folder in IMPORTED_BY_REPLICAS:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@dataclass(frozen=True)
class Ingress:
    address: str
    port: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    import ray

    # Workers inherit the environment of the processes that Ray starts now.
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, IMPORTED_BY_REPLICAS), os.environ.get("PYTHONPATH", "")])
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ingress(ray_cluster: None) -> Iterator[Ingress]:
    import sdk

    port = free_port()
    sdk.start(sdk.GrpcOptions(port=port))
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
    for name in names:
        delete(name)
