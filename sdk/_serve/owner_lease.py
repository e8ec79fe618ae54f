"""Applications that belong to a command end with it, also when it is killed and can't end them."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from typing import Any

import ray

from sdk._ingress.cluster import find_controller

# Seconds between two looks at whether the ingress controller still knows of the tie: it forgets when it restarts.
_LOOK_S = 2.0


class Tie:
    """Has the ingress controller call a function when this process dies between :meth:`start` and :meth:`release`.

    Args:
        end: What to do then; the controller calls it in a thread, so it must be importable there.

    Example:
        >>> import functools
        >>> from sdk._serve.api import end
        >>> tie = Tie(functools.partial(end, ["shop"], ends_serve=False, ends_ingress=False))  # doctest: +SKIP
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._key = uuid.uuid4().hex
        self._held: Any | None = None
        self._over = threading.Event()

    def start(self) -> None:
        """Begin; the ingress must run."""
        self._held = self._hold()
        threading.Thread(target=self._keep, name="tie", daemon=True).start()

    def renew(self) -> None:
        """Let the function be called as it is now: what it was given has changed."""
        before, self._key = self._key, uuid.uuid4().hex
        self._held = self._hold()
        self._let_go(before)

    def release(self) -> None:
        """Let go: from now on this process may end."""
        self._over.set()
        self._let_go(self._key)

    def _let_go(self, key: str) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            controller = find_controller()
            if controller is not None:
                ray.get(controller.release_owner_lease.remote(key), timeout=_LOOK_S)

    def _hold(self) -> Any | None:
        controller = find_controller()
        if controller is None:
            return None
        held = controller.hold_owner_lease.remote(self._key)
        controller.watch_owner_lease.remote([held], self._end)
        return held

    def _keep(self) -> None:
        while not self._over.wait(_LOOK_S):
            with contextlib.suppress(ray.exceptions.RayError):
                if self._held is None or ray.wait([self._held], timeout=0)[0]:
                    self._held = self._hold()
