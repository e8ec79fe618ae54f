"""An actor takes the worker process that Ray started early for it."""

from __future__ import annotations

import os
import uuid
from typing import Any

import pytest
import ray

from sdk._serve.ray_connection import gcs_address
from sdk._serve.worker_prestart import prestart_workers
from tests.support.deadlines import wait_until
from tests.support.processes import processes_with

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Process:
    """An actor in a worker process."""

    def number(self) -> int:
        return os.getpid()


def test_an_actor_takes_a_worker_that_was_started_before_it() -> None:
    mark = uuid.uuid4().hex
    environment: dict[str, Any] = {"env_vars": {"SDK_TEST_MARK": mark}}
    prestart_workers(gcs_address(), environment)
    wait_until(lambda: any(line.startswith("ray::IDLE") for line in processes_with(mark)))
    started = len(processes_with(mark))
    actor = ray.remote(Process).options(num_cpus=0, runtime_env=environment).remote()
    try:
        assert ray.get(actor.number.remote()) > 0
        assert len(processes_with(mark)) == started
        assert any("Process" in line for line in processes_with(mark))
    finally:
        ray.kill(actor)
