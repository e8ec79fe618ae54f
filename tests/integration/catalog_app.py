"""Serves either version of the catalog, whichever code a replica imports. Replicas import this module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from catalog_pb2 import Item, Query
from catalog_sdk import CatalogBase

from sdk import grpc_deployment


def _item(request: Any) -> Item:
    # The first version has no shelves.
    return Item(name=request.name, **({"shelf": request.shelf} if hasattr(request, "shelf") else {}))


@grpc_deployment(
    partial=True,
    max_ongoing_requests=100,
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=300,  # the test ends its streams itself
    ray_actor_options={"num_cpus": 0.1},
)
class Catalog(CatalogBase):
    async def Get(self, request: Query) -> Item:
        return _item(request)

    async def Watch(self, request: Query) -> AsyncIterator[Item]:
        Path(f"{request.until}.{request.name}").touch()
        while not Path(request.until).exists():
            yield _item(request)
            await asyncio.sleep(0.01)

    async def Find(self, request: Query) -> Item:
        return _item(request)
