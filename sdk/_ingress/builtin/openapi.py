"""``GET /openapi.json``: the OpenAPI document of the services that clients can call, from the replicas' descriptors.

Its comments are those of the protos, which generated code has: :class:`sdk.service.Service`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct

from sdk._protos.descriptors import Descriptors
from sdk._protos.openapi import build_openapi
from sdk._replica_protocol import OPENAPI_PATH
from sdk.service import Cardinality, Method, MethodBinding

if TYPE_CHECKING:
    from sdk._xds.snapshot import Snapshot
    from sdk.context import ServicerContext


class OpenApi:
    """Answers with the document of the routing table. With ``application`` metadata, it is that of one application.

    Args:
        snapshot: Returns the routing table that Envoy serves.
        fetch: Returns the serialized ``FileDescriptorSet`` of a digest; None if it is unknown.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], fetch: Callable[[str], Awaitable[bytes | None]]) -> None:
        self._snapshot = snapshot
        self._fetch = fetch
        self._documents: dict[str, Struct] = {}
        self._version = -1

    def bindings(self) -> list[MethodBinding]:
        """Return the method whose path is that of the document; a GET calls it, since it has no side effects."""
        method = Method(
            "OpenApi", "OpenApi", OPENAPI_PATH, Cardinality.UNARY_UNARY, Empty, Struct, idempotency="no_side_effects"
        )
        return [MethodBinding(method, self.document)]

    async def document(self, _: Any, grpc_context: ServicerContext) -> Struct:
        """Return the document."""
        snapshot = self._snapshot()
        if snapshot.version != self._version:
            # What an earlier version still waits for is kept with that version.
            self._version, self._documents = snapshot.version, {}
        documents = self._documents
        name = grpc_context.application() or ""
        if name not in documents:
            described, is_complete = await self._services(snapshot, name)
            # Not on the loop, which answers health checks: hundreds of services take a second.
            document = await asyncio.to_thread(_build, described, name)
            if not is_complete:
                return document
            documents[name] = document
        return documents[name]

    async def _services(self, snapshot: Snapshot, application: str) -> tuple[dict[str, bytes], bool]:
        """Return the files of each service, and whether all are there: a replica may be about to bring some.

        Those of the first application that serves it.
        """
        found: dict[str, bytes] = {}
        is_complete = True
        for known in snapshot.applications:
            if application and known.name != application:
                continue
            for deployment in known.deployments:
                data = await self._fetch(deployment.descriptors) if deployment.descriptors else b""
                is_complete = is_complete and data is not None
                for service in deployment.services if data else ():
                    found.setdefault(service, data or b"")
        return found, is_complete


def _build(described: dict[str, bytes], application: str) -> Struct:
    document: dict[str, Any] = {}
    for data in dict.fromkeys(described.values()):
        services = [name for name, files in described.items() if files == data]
        files = Descriptors(FileDescriptorSet.FromString(data), application or "the applications")
        part = build_openapi(files, services, title=application or "gRPC services", version="1")
        if not document:
            document = part
            continue
        document["tags"] += part["tags"]
        document["paths"] = {**part["paths"], **document["paths"]}
        schemas = document["components"]["schemas"]
        document["components"]["schemas"] = {**part["components"]["schemas"], **schemas}
    if document:
        document["tags"].sort(key=lambda tag: tag["name"])  # deployments register in any order
    result = Struct()
    empty: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": application or "gRPC services", "version": "1"},
        "paths": {},
    }
    result.update(document or empty)
    return result
