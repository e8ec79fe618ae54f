"""Delete the applications that belong to a command when the command ends, even if it is killed."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Collection
from typing import Any

import ray

from sdk._ingress.cluster import find_controller

# Seconds between two checks that the ingress controller still has the lease. A restarted controller has lost it, and
# does not know who has deployed the applications since.
_CHECK_INTERVAL_S = 2.0
_ANSWER_TIMEOUT_S = 10.0


class OwnerLease:
    """Makes the ingress controller delete applications if this process dies between :meth:`start` and :meth:`release`.

    Args:
        ends_serve: Shut down Ray Serve and the ingress too, unless another application is left.
        ends_ingress: Stop the ingress, unless it still routes to another application.

    Example:
        >>> lease = OwnerLease(ends_serve=False, ends_ingress=False)
        >>> lease.start(["shop"])  # doctest: +SKIP
    """

    def __init__(self, *, ends_serve: bool, ends_ingress: bool) -> None:
        self._ends_serve, self._ends_ingress = ends_serve, ends_ingress
        self._key = uuid.uuid4().hex
        self._applications: tuple[str, ...] = ()
        self._held: Any | None = None
        self._released = threading.Event()

    def start(self, applications: Collection[str]) -> None:
        """Take the lease. The ingress must run.

        Args:
            applications: Names of the applications that this process is about to deploy.
        """
        self._applications = tuple(applications)
        self._held = self._hold()
        threading.Thread(target=self._keep, name="owner-lease", daemon=True).start()

    def renew(self, applications: Collection[str]) -> None:
        """Take the lease again, for other applications."""
        before, self._key, self._applications = self._key, uuid.uuid4().hex, tuple(applications)
        self._held = self._hold()
        self._release(before)

    def owned(self) -> tuple[str, ...]:
        """Return the applications of this lease, without those that another program has deployed since."""
        with contextlib.suppress(ray.exceptions.RayError):
            controller = find_controller()
            if controller is not None:
                owned: tuple[str, ...] = ray.get(
                    controller.owned_applications.remote(self._key, self._applications), timeout=_ANSWER_TIMEOUT_S
                )
                return owned
        return self._applications

    def release(self) -> None:
        """Give the lease back: this process may end now."""
        self._released.set()
        self._release(self._key)

    def _release(self, key: str) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            controller = find_controller()
            if controller is not None:
                ray.get(controller.release_owner_lease.remote(key), timeout=_ANSWER_TIMEOUT_S)

    def _hold(self) -> Any | None:
        controller = find_controller()
        if controller is None:
            return None
        # This process owns the result of the call. If it dies, the controller's wait for the result raises
        # OwnerDiedError: https://docs.ray.io/en/latest/ray-core/fault_tolerance/objects.html
        held = controller.hold_owner_lease.remote(self._key, self._applications)
        ends = (self._ends_serve, self._ends_ingress)
        controller.watch_owner_lease.remote(self._key, [held], self._applications, *ends)
        return held

    def _keep(self) -> None:
        while not self._released.wait(_CHECK_INTERVAL_S):
            with contextlib.suppress(ray.exceptions.RayError):
                if self._held is None or ray.wait([self._held], timeout=0)[0]:
                    self._held = self._hold()
