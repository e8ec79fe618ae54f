"""The proxies as Ray actors: list, create and stop them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sdk._ingress.cluster import NAMESPACE, proxy_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk._channel.feed import DeploymentKey
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

# Seconds that a proxy has to stop, including a possible restart of its actor.
_STOP_TIMEOUT_S = 10.0
_RETRY_S = 0.2
# Calls that a proxy answers at once: each program on a node without a proxy has a long poll open.
_MAX_CALLS = 100_000


class Proxy:
    """Class of the proxy actors: a :class:`NodeProxy`, which the actor imports when it starts.

    Ray imports the class of an actor in the process that creates it, too. So the controller has no need to import all
    of Envoy's configuration, for a third of a second of CPU time.

    Args:
        node_id: Ray's id of its node.
        options: Options of the ingress, before any change.
    """

    async def __init__(self, node_id: str, options: GrpcOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        from sdk._ingress.proxy import NodeProxy

        self._proxy = NodeProxy(node_id, options)
        await self._proxy.start()

    async def stop(self) -> None:
        """Drain and stop Envoy and the proxy's servers."""
        await self._proxy.stop()

    async def poll_endpoints(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> list[bytes]:
        """Return new states of the deployments that a program on a node without a proxy calls (long poll)."""
        return await self._proxy.poll_endpoints(program_id, interests)

    async def note_interests(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> None:
        """Take a change of such a program's interests while its poll is open."""
        await self._proxy.note_interests(program_id, interests)


def alive_nodes() -> dict[str, bool]:
    """Return node id → whether it is the head node, for all nodes that are alive."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: "node:__internal_head__" in node["Resources"] for node in nodes if node["Alive"]}


def nodes_with_proxy(nodes: set[str]) -> set[str]:
    """Return those of the nodes that have a proxy actor."""
    names = {
        actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE
    }
    return {node_id for node_id in nodes if proxy_name(node_id) in names}


def create(node_id: str, options: GrpcOptions) -> Any:
    """Return a handle to the proxy of a node, and create it if it does not exist."""
    return (
        ray.remote(Proxy)
        .options(
            name=proxy_name(node_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=_MAX_CALLS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote(node_id, options)
    )


async def stop(actor: Any) -> None:
    """Stop a proxy with its Envoy, and kill the actor."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait_for(actor.stop.remote(), left)
            break
        except (TimeoutError, ray.exceptions.RayError) as error:  # each try may fail
            # An actor that is being restarted adopts the Envoy of its predecessor and can stop it.
            logger.warning("can't stop a proxy (%s); trying again", error)
            await asyncio.sleep(_RETRY_S)
    await asyncio.to_thread(ray.kill, actor)
