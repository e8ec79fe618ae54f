"""An application of three deployments, each with its own service. A separate module, because replicas import it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle
from store_pb2 import Key, Value
from store_sdk import ClerkBase, StoreBase, VaultBase

from sdk import grpc_deployment


@grpc_deployment(graceful_shutdown_wait_loop_s=0.1, expose=False)
class Vault(VaultBase):
    """Only the store calls it."""

    async def Open(self, request: Key) -> Value:
        return Value(text=f"gold for {request.text}")


@grpc_deployment(graceful_shutdown_wait_loop_s=0.1)
class Clerk(ClerkBase):
    async def Greet(self, request: Key) -> Value:
        return Value(text=f"welcome {request.text}")


@grpc_deployment(num_replicas=2, graceful_shutdown_wait_loop_s=0.1, health_check_period_s=1, max_ongoing_requests=100)
class Store(StoreBase):
    """Get returns its process id; Put opens the vault. In the process that the key names, neither ever ends."""

    def __init__(self, clerk: DeploymentHandle[Any], vault: DeploymentHandle[Any]) -> None:
        self.clerk, self.vault = clerk, vault

    async def Get(self, request: Key) -> Value:
        await self._wait_in(request.text)
        return Value(text=str(os.getpid()))

    async def Put(self, request: Key) -> Value:
        if " " in request.text or not request.text:
            return await self.Get(request)
        opened: Value = await self.vault.Open.remote(request)
        return opened

    async def _wait_in(self, key: str) -> None:
        """Write the file and never return if this is the process of the key ``"PID FILE"``."""
        pid, _, file = key.partition(" ")
        if pid == str(os.getpid()):
            Path(file).touch()
            await asyncio.Event().wait()


def store() -> Any:
    return Store.bind(Clerk.bind(), Vault.bind())
