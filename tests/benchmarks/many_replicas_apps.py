"""The applications of ``many_replicas``, in a separate module that replicas import."""

from __future__ import annotations

from typing import Any

from bench_sdk import BenchBase, BenchHandle

from sdk import grpc_deployment
from tests.benchmarks.handlers import Handlers
from tests.benchmarks.service import Bench

#: Names of the application with many replicas, and of the one that calls it through a handle.
MANY, CALLER = "many", "caller"
_WITHOUT_CPU = {"num_cpus": 0}


@grpc_deployment(max_ongoing_requests=1000, ray_actor_options=_WITHOUT_CPU)
class Caller(Handlers, BenchBase):
    """Calls the application with many replicas."""

    def __init__(self) -> None:
        super().__init__(BenchHandle.of_application(MANY))

    call = Bench.call
    stream = call


def build(args: dict[str, str]) -> Any:
    """Build the application for Ray Serve's config; other arguments replace its replicas."""
    return Bench.options(ray_actor_options=_WITHOUT_CPU, graceful_shutdown_wait_loop_s=0.1).bind()
