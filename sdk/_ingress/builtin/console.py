"""Data for the page of the console: the services with their types, and the state of the ingress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct

from sdk._ingress.builtin.live_calls import LiveCalls
from sdk._protos.catalog import build_catalog
from sdk._protos.descriptors import Descriptors
from sdk._replica_protocol import CATALOG_PATH, INGRESS_STATE_PATH
from sdk.service import Cardinality, Method, MethodBinding

if TYPE_CHECKING:
    from sdk._figures.figures import Reading
    from sdk._ingress.registry import ProxyState
    from sdk._xds.snapshot import Application, Snapshot

# Seconds for which pages see the same proxies: each page asks every two.
_KEPT_S = 1.5
_NOT_COUNTED = "Calls are counted on a Ray cluster only."


class ConsoleData:
    """Answers the page of the console.

    Args:
        snapshot: Returns the routing table that Envoy serves.
        fetch: Returns the serialized ``FileDescriptorSet`` of a digest; None if it is unknown.
        fetch_proxies: Returns the states of all proxies.
        read_metrics: Returns the metrics of all nodes, and blocks; None where calls are not counted.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        fetch: Callable[[str], Awaitable[bytes | None]],
        fetch_proxies: Callable[[], Awaitable[Sequence[ProxyState]]],
        read_metrics: Callable[[], Reading] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._fetch = fetch
        self._fetch_proxies = fetch_proxies
        self._live = LiveCalls(read_metrics) if read_metrics is not None else None
        self._catalog: Struct | None = None
        self._version = -1
        self._proxies: Sequence[ProxyState] = ()
        self._read_at = float("-inf")

    def bindings(self) -> list[MethodBinding]:
        """Return the methods whose paths the page asks for; a GET calls them, since they have no side effects."""
        return [
            MethodBinding(_method("Services", CATALOG_PATH), self.catalog),
            MethodBinding(_method("State", INGRESS_STATE_PATH), self.state),
        ]

    async def catalog(self, _: Any) -> Struct:
        """Return each application with its services and types."""
        snapshot = self._snapshot()
        if self._catalog is None or snapshot.version != self._version:
            digests = {each.descriptors for app in snapshot.applications for each in app.deployments} - {""}
            files = {digest: await self._fetch(digest) for digest in sorted(digests)}
            # Not on the loop, which answers health checks: hundreds of services take a second.
            catalog = await asyncio.to_thread(_build, snapshot.applications, files)
            if None in files.values():  # a replica is about to bring it
                return catalog
            self._catalog, self._version = catalog, snapshot.version
        return self._catalog

    async def state(self, _: Any) -> Struct:
        """Return the applications that the ingress routes to, the proxies, and the calls of all nodes."""
        if time.monotonic() > self._read_at + _KEPT_S:
            self._read_at = time.monotonic()
            self._proxies = await self._fetch_proxies()
        result = Struct()
        calls, problem = self._live.latest() if self._live is not None else (None, _NOT_COUNTED)
        status = _status(self._snapshot(), self._proxies)
        result.update({"cluster": "", "status": status, "calls": calls, "problems": [problem] if problem else []})
        return result


def _method(name: str, path: str) -> Method:
    return Method(name, name, path, Cardinality.UNARY_UNARY, Empty, Struct, idempotency="no_side_effects")


def _build(applications: Sequence[Application], files: dict[str, bytes | None]) -> Struct:
    described = {
        digest: Descriptors(FileDescriptorSet.FromString(data), "the applications")
        for digest, data in files.items()
        if data is not None
    }
    found = []
    for application in applications:
        services: dict[str, Any] = {}
        types: dict[str, Any] = {}
        for deployment in application.deployments:
            if deployment.descriptors in described:
                part = build_catalog(described[deployment.descriptors], deployment.services)
                # If two deployments serve one service, calls go to the first one.
                services = {each["name"]: each for each in part["services"]} | services
                types = {each["name"]: each for each in part["types"]} | types
        ordered = [services[name] for name in sorted(services)]
        found.append({"name": application.name, "services": ordered, "types": list(types.values())})
    result = Struct()
    result.update({"calls": "connect", "applications": found})
    return result


def _status(snapshot: Snapshot, proxies: Sequence[ProxyState]) -> dict[str, Any]:
    """Return the state in the form of ``sdk status --json``, as far as the ingress knows it."""
    applications = [
        {
            "name": application.name,
            "state": "",
            "message": "",
            "deployments": [
                {
                    "name": deployment.name,
                    "state": "",
                    "message": "",
                    "services": list(deployment.services),
                    "replicas": len(deployment.endpoints),
                    "endpoints": len(deployment.endpoints),
                    "scaled_to_zero": deployment.scales_to_zero and deployment.holds_calls,
                }
                for deployment in application.deployments
            ],
        }
        for application in snapshot.applications
    ]
    newest = max((proxy.version for proxy in proxies), default=snapshot.version)
    shown = [
        {
            "node_id": proxy.node_id,
            "address": proxy.address,
            "up_to_date": proxy.version == newest,
            "envoy_pid": proxy.envoy_pid,
            "problem": "; ".join(filter(None, [proxy.problem, *map(str, proxy.rejected_applications)])),
            "version": proxy.version,
        }
        for proxy in proxies
    ]
    return {
        "healthy": all(proxy["up_to_date"] and not proxy["problem"] for proxy in shown),
        "applications": applications,
        "proxies": shown,
        "version": newest,
        "problem": "",
    }
