"""The ingress under test: changes, faults, and the check that it has converged."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

import sdk
from sdk._ingress.cluster import CONTROLLER_NAME, NAMESPACE, find_controller, proxy_name
from sdk._serve.internals import application_overviews, application_states
from tests.chaos.chaos_apps import Caller
from tests.chaos.constant_load import Load
from tests.support.deadlines import wait_until
from tests.support.processes import commands, ingress_folder, is_alive, raylet_pid, workers

_PATIENCE_S = 180.0


class World:
    """One application behind the ingress of a cluster of one node, and another one that calls it through a handle.

    The first is deployed by Ray Serve's config, which can change options without replacing replicas. The other one is
    not changed.

    Args:
        application: Its name.
        replicas: How many it has at first.
    """

    def __init__(self, application: str, replicas: int) -> None:
        self.application, self.replicas = application, replicas
        #: Name of the application that calls it.
        self.caller = f"caller of {application}"
        #: Replicas that were replaced or taken away by a change.
        self.replaced = 0
        #: Time at which the process that was killed last had exited.
        self.dead_at = 0.0
        self._number = 1
        self._options: dict[str, Any] = {}
        # The replacement of a killed process: a function that identifies the process, and its result before the fault.
        self._killed: list[tuple[Callable[[], object], object]] = []
        self.node_id = sdk.status().proxies[0].node_id
        self.raylet = raylet_pid(self.node_id)
        self._deploy()
        self.wait_converged()
        sdk.run(Caller.bind(application), name=self.caller)

    # -- changes

    @property
    def version(self) -> str:
        """The deployed version, as the replicas report it."""
        return f"v{self._number}"

    def redeploy(self) -> None:
        """Replace every replica by one of the next version."""
        self.replaced += self.replicas
        self._number += 1
        self._deploy()

    def scale(self, replicas: int) -> None:
        """Change the number of replicas."""
        self.replaced += max(0, self.replicas - replicas)
        self.replicas = replicas
        self._deploy()

    def change(self, **options: Any) -> None:
        """Change options of the running replicas."""
        self._options.update(options)
        self._deploy()

    def change_ingress(self, **options: Any) -> None:
        """Change options of the ingress, and return when they apply."""
        running: sdk.GrpcOptions = ray.get(find_controller().status.remote(), timeout=15).options
        sdk.start(replace(running, **options))

    def _deploy(self) -> None:
        deployment = {"name": "Target", "num_replicas": self.replicas, **self._options}
        config = {
            "name": self.application,
            "route_prefix": None,
            "import_path": "tests.chaos.chaos_apps:build",
            "args": {"version": self.version},
            "deployments": [deployment],
        }
        # The REST API and `serve deploy` end in this call. It can wait, but not longer than a minute.
        client = serve.context._get_global_client()
        client.deploy_apps(ServeDeploySchema(applications=[config]), _blocking=False)
        deadline = time.monotonic() + _PATIENCE_S
        while (state := application_states()[self.application]) is not ApplicationStatus.RUNNING:
            if state is ApplicationStatus.DEPLOY_FAILED or time.monotonic() >= deadline:
                raise AssertionError(f"not deployed: {application_overviews()[self.application]}")
            time.sleep(0.1)

    # -- faults

    def kill_replica(self, load: Load) -> None:
        """Kill a replica that serves."""
        self._kill(self.victim(load), self._replica_pids)

    def victim(self, load: Load) -> int:
        """Return the process id of a replica that answers calls."""
        since = time.monotonic() - 1
        wait_until(lambda: any(map(is_alive, load.serving(since))))  # on a busy machine a call takes seconds
        return min(filter(is_alive, load.serving(since)))

    def kill_envoy(self) -> None:
        """Kill Envoy."""
        self._kill(self._envoy(), self._envoy)

    def kill_supervisor(self) -> None:
        """Kill Envoy's supervisor, and Envoy with it."""
        self._kill(os.getsid(self._envoy()), self._envoy)

    def kill_proxy(self) -> None:
        """Kill the process of the proxy actor."""
        self._kill(self._worker("ray::Proxy"), lambda: self._worker("ray::Proxy"))

    def restart_proxy(self) -> None:
        """Let Ray restart the proxy actor."""
        self._expect_another(lambda: self._worker("ray::Proxy"))
        ray.kill(ray.get_actor(proxy_name(self.node_id), namespace=NAMESPACE), no_restart=False)

    def kill_controller(self) -> None:
        """Kill the process of the controller."""
        self._kill(self._worker("ray::Controller"), lambda: self._worker("ray::Controller"))

    def restart_controller(self) -> None:
        """Let Ray restart the controller."""
        self._expect_another(lambda: self._worker("ray::Controller"))
        ray.kill(ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE), no_restart=False)

    @contextlib.contextmanager
    def paused(self, load: Load) -> Iterator[None]:
        """Stop a replica with SIGSTOP for a while."""
        pid = self.victim(load)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # -- looking

    def has_converged(self) -> bool:
        """Return True if every part runs, and the ingress routes to every replica and to nothing else."""
        try:
            status = sdk.status()
        except sdk.ClusterError:
            return False
        for application in status.applications:
            if application.name == self.application:
                (deployment,) = application.deployments
                counts = {deployment.replicas, len(deployment.endpoints), len(self._replica_pids()), self.replicas}
                is_healthy = status.is_healthy and all(proxy.envoy_pid for proxy in status.proxies)
                return is_healthy and len(counts) == 1 and all(see() not in (0, before) for see, before in self._killed)
        return False

    def wait_converged(self) -> float:
        """Wait until it has converged, and return the time."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.has_converged():
            if time.monotonic() > deadline:
                status = sdk.status()
                raise AssertionError(f"the ingress did not converge within {_PATIENCE_S:g} s: {status}")
            time.sleep(0.1)
        self._killed.clear()
        return time.monotonic()

    def leftovers(self) -> list[int]:
        """Return the excess replicas of the application."""
        return self._replica_pids()[self.replicas :]

    # -- internal

    def _replica_pids(self) -> list[int]:
        return sorted(workers(self.raylet, f"ray::ServeReplica:{self.application}:"))

    def _worker(self, title: str) -> int:
        return next(iter(workers(self.raylet, title)), 0)

    def _envoy(self) -> int:
        return next(iter(commands(f"--config-path {ingress_folder(self.node_id)}")), 0)

    def _kill(self, pid: int, see: Callable[[], object]) -> None:
        self._expect_another(see)
        os.kill(pid, signal.SIGKILL)
        # A busy machine may take long to end a process; its connections stay open until then.
        while is_alive(pid):
            time.sleep(0.005)
        self.dead_at = time.monotonic()

    def _expect_another(self, see: Callable[[], object]) -> None:
        self._killed.append((see, see()))
