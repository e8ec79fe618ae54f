"""Store of the changed options of the ingress, for a controller that Ray restarts.

Ray restarts an actor with its original arguments. The proxies restore the routing table and the replicas complete it,
but changed options would be lost. So they are stored in the key-value store of the GCS, where Ray stores the actor
itself and Ray Serve its applications.
https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import ray
from ray.experimental import internal_kv

from sdk._ingress.cluster import NAMESPACE
from sdk.options import LIVE_OPTIONS

if TYPE_CHECKING:
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

_RETRY_S = 0.2


async def save(options: GrpcOptions) -> None:
    """Store the live options of this actor, so that a restart keeps them.

    Raises:
        ray.exceptions.RayError: The GCS does not answer.
    """
    live = {name: getattr(options, name) for name in LIVE_OPTIONS}
    if options.access is not None:
        live["access"] = options.access.to_mapping()
    text = json.dumps(live).encode()
    await asyncio.to_thread(internal_kv._internal_kv_put, _key(), text, namespace=NAMESPACE)


async def load(first: GrpcOptions) -> GrpcOptions:
    """Return the options with the stored changes of this actor, if any.

    Retries until the GCS answers: an error in its constructor would end the actor for good.

    Args:
        first: Options that the actor was created with.
    """
    while True:
        try:
            kept = await asyncio.to_thread(internal_kv._internal_kv_get, _key(), namespace=NAMESPACE)
        except ray.exceptions.RayError as error:  # each try may fail separately
            logger.warning("can't load the changed options from the GCS (%s); trying again", error)
            await asyncio.sleep(_RETRY_S)
        else:
            return first if kept is None else replace(first, **json.loads(kept))


async def delete() -> None:
    """Delete the stored options of this actor.

    Raises:
        ray.exceptions.RayError: The GCS does not answer.
    """
    await asyncio.to_thread(internal_kv._internal_kv_del, _key(), namespace=NAMESPACE)


def _key() -> bytes:
    # The actor id survives restarts and differs between ingresses.
    return f"options-{ray.get_runtime_context().get_actor_id()}".encode()
