"""Ray Serve, as the ingress controller knows it.

The functions are in ``sdk/_serve``, and are imported when they are first called: the import of Ray Serve takes half a
second, and few controllers ever need it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray


@dataclass(frozen=True, slots=True)
class ServeLink:
    """Ray Serve, as the controller knows it. Functions that are not async wait for Ray Serve: call them in a thread.

    Attributes:
        controller_name: Name of the actor of Ray Serve's controller.
        namespace: Its namespace.
    """

    controller_name: str
    namespace: str

    def is_running(self) -> bool:
        """Return True if Ray Serve runs. It counts as running while its controller restarts."""
        try:
            ray.get_actor(self.controller_name, namespace=self.namespace)
        except ValueError:
            return False
        return True

    def list_deployments(self) -> Mapping[str, Container[str]] | None:
        """Return application → names of its deployments, none while these are unknown; None without an answer."""
        deployments: Mapping[str, Container[str]] | None = _module("ingress_bootstrap").list_deployments()
        return deployments

    def list_failed(self) -> frozenset[str]:
        """Return the names of the applications that failed to deploy."""
        failed: frozenset[str] = _module("ingress_bootstrap").list_failed()
        return failed

    async def start_first_replica(self, application: str, deployment: str) -> str:
        """Get a replica of a deployment for which calls wait; return the reason if none can start, else ""."""
        cold_start = await asyncio.to_thread(_module, "cold_start")
        reason: str = await cold_start.start_first_replica(application, deployment)
        return reason

    def end_applications(self, names: Sequence[str], *, ends_serve: bool, ends_ingress: bool) -> None:
        """Delete the applications of a command that was killed."""
        _module("api").end_applications(names, ends_serve=ends_serve, ends_ingress=ends_ingress)


def _module(name: str) -> Any:
    return importlib.import_module(f"sdk._serve.{name}")
