"""The proxies from which a program learns where replicas are; see ``sdk/_channel/target.py``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from sdk._ingress.cluster import NAMESPACE, find_controller, proxy_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk._channel.feed import DeploymentKey


@contextmanager
def _asking_ray() -> Iterator[None]:
    """Make Ray's errors that of a connection: its GCS restarts, or the program leaves the cluster."""
    try:
        yield
    except RayError as error:
        raise ConnectionError(str(error)) from error


def node_id() -> str:
    """Return Ray's id of this node; ``""`` where Ray does not run.

    Raises:
        OSError: Ray does not answer.
    """
    with _asking_ray():
        return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def has_ingress() -> bool:
    """Return True if the cluster has an ingress.

    Raises:
        OSError: Ray does not answer.
    """
    with _asking_ray():
        return ray.is_initialized() and find_controller() is not None


def distant_proxy(node_id: str) -> DistantProxy | None:
    """Return the proxy of another node; None if this node has one, or no node has.

    Args:
        node_id: Ray's id of this node.

    Raises:
        OSError: Ray does not answer.
    """
    with _asking_ray():
        named = ray.util.list_named_actors(all_namespaces=True)
    names = {actor["name"] for actor in named if actor["namespace"] == NAMESPACE}
    proxies = [name for name in names if name.startswith(proxy_name(""))]
    if not proxies or proxy_name(node_id) in proxies:
        return None
    try:
        with _asking_ray():
            return DistantProxy(ray.get_actor(random.choice(proxies), namespace=NAMESPACE))
    except ValueError:  # it has ended meanwhile
        return None


class DistantProxy:
    """A proxy on another node, which is asked by Ray's actor calls: they follow Ray's switches for TLS and tokens.

    Args:
        actor: Its actor.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def poll(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> list[bytes]:
        """Return new states; see ``EndpointFeed.poll``.

        Raises:
            OSError: The proxy is gone.
        """
        with _asking_ray():
            lines: list[bytes] = await self._actor.poll_endpoints.remote(program_id, interests)
        return lines

    def note(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> None:
        """Send interests that have changed. If this fails, so does the open poll."""
        self._actor.note_interests.remote(program_id, interests)
