"""The options of the ingress as they were changed last, kept for a controller that Ray starts again.

Ray calls an actor's constructor with its first arguments again. A routing table comes back from the proxies, and
replicas mend what is missing; options would be lost with the last proxy that holds them. So they are kept where Ray
keeps the actor itself, and Ray Serve its applications: in the key-value store of the GCS.
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
from sdk.options import LIVE

if TYPE_CHECKING:
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

_RETRY_S = 0.2


async def keep(options: GrpcOptions) -> None:
    """Keep the options that this actor has changed, beyond its restarts.

    Raises:
        ray.exceptions.RayError: The GCS does not answer.
    """
    live = json.dumps({name: getattr(options, name) for name in LIVE}).encode()
    await asyncio.to_thread(internal_kv._internal_kv_put, _key(), live, namespace=NAMESPACE)


async def restore(first: GrpcOptions) -> GrpcOptions:
    """Return the options as this actor changed them last; those that it was created with when it never did.

    Asks until the GCS answers: an error in its constructor would end the actor for good.
    """
    while True:
        try:
            kept = await asyncio.to_thread(internal_kv._internal_kv_get, _key(), namespace=NAMESPACE)
        except ray.exceptions.RayError as error:  # each try may fail by itself
            logger.warning("Ray does not say which options were changed (%s); asking again", error)
            await asyncio.sleep(_RETRY_S)
        else:
            return first if kept is None else replace(first, **json.loads(kept))


async def forget() -> None:
    """Keep them no longer: this actor ends.

    Raises:
        ray.exceptions.RayError: The GCS does not answer.
    """
    await asyncio.to_thread(internal_kv._internal_kv_del, _key(), namespace=NAMESPACE)


def _key() -> bytes:
    # A restart does not change it, and another ingress has another.
    return f"options-{ray.get_runtime_context().get_actor_id()}".encode()
