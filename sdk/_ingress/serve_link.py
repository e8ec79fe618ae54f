"""Ray Serve, as the ingress controller knows it.

The import of Ray Serve takes half a second of CPU time, which a start has better use for, and 40 MB. So what the
controller often asks is asked without it, by a private method of Ray Serve's controller (checked with Ray Serve 2.60).
Functions in ``sdk/_serve`` do the rest: they are imported when they are first called, and few controllers ever need
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from sdk._gen import serve_status_pb2 as pb

# Seconds that Ray Serve has to answer.
_ANSWER_S = 10.0
_importing = threading.Lock()


@dataclass(frozen=True, slots=True)
class ServeLink:
    """Ray Serve, as the controller knows it. Functions that are not async wait for Ray Serve: call them in a thread.

    Attributes:
        controller_name: Name of the actor of Ray Serve's controller.
        namespace: Its namespace.
        module: The module of its class.
    """

    controller_name: str
    namespace: str
    module: str

    def find_controller(self) -> Any | None:
        """Return a handle to Ray Serve's controller, or None when Ray Serve does not run; a restarting one runs."""
        try:
            with _importing:
                if "ray.serve" in sys.modules:
                    return ray.get_actor(self.controller_name, namespace=self.namespace)
                with _import_prevented(self.module):
                    controller: Any = ray.get_actor(self.controller_name, namespace=self.namespace)
                    _forget_class(controller)
                    return controller
        except ValueError:
            return None

    def is_running(self) -> bool:
        """Return True if Ray Serve runs. It counts as running while its controller restarts."""
        return self.find_controller() is not None

    def list_deployments(self) -> Mapping[str, Container[str]] | None:
        """Return application → names of its deployments, none while these are unknown; None without an answer."""
        try:
            applications = self._list_applications()
        except ray.exceptions.RayError:
            return None
        return {
            each.name: tuple(found.name for found in each.deployment_statuses.deployment_status_infos)
            for each in applications
        }

    def list_failed(self) -> frozenset[str]:
        """Return the names of the applications that failed to deploy; none without an answer."""
        try:
            applications = self._list_applications()
        except ray.exceptions.RayError:
            return frozenset()
        failed = pb.APPLICATION_STATUS_DEPLOY_FAILED
        return frozenset(each.name for each in applications if each.app_status.status == failed)

    async def start_first_replica(self, application: str, deployment: str) -> str:
        """Get a replica of a deployment for which calls wait; return the reason if none can start, else ""."""
        cold_start = await asyncio.to_thread(_module, "cold_start")
        reason: str = await cold_start.start_first_replica(application, deployment)
        return reason

    def end_applications(self, names: Sequence[str], *, ends_serve: bool, ends_ingress: bool) -> None:
        """Delete the applications of a command that was killed."""
        _module("api").end_applications(names, ends_serve=ends_serve, ends_ingress=ends_ingress)

    def _list_applications(self) -> list[pb.StatusOverview]:
        """Return the applications; none if Ray Serve does not run.

        Raises:
            ray.exceptions.RayError: It does not answer.
        """
        controller = self.find_controller()
        if controller is None:
            return []
        statuses: list[bytes] = ray.get(controller.list_serve_statuses.remote(), timeout=_ANSWER_S)
        return [pb.StatusOverview.FromString(status) for status in statuses]


@contextlib.contextmanager
def _import_prevented(module: str) -> Iterator[None]:
    """Let the import of a module fail.

    Ray imports the class of an actor to find out which methods its handle has. If that fails, it makes a class with the
    names of these methods, which it has stored with the actor. None among the loaded modules prevents an import:
    https://docs.python.org/3/reference/import.html#the-module-cache
    """
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def _forget_class(actor: Any) -> None:
    """Let Ray load the class of an actor again for its next handle: the methods of a made one take no arguments."""
    descriptor = actor._ray_actor_creation_function_descriptor
    worker: Any = ray._private.worker.global_worker
    worker.function_actor_manager._loaded_actor_classes.pop(descriptor.function_id, None)
    methods: Any = ray.actor._ActorClassMethodMetadata
    methods._cache.pop(descriptor, None)


def _module(name: str) -> Any:
    with _importing:
        return importlib.import_module(f"sdk._serve.{name}")
