"""Server reflection, v1 and v1alpha, from the descriptors of the replicas. It imports no user code.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection import aio as implementation

from sdk._gen import serve_api_pb2
from sdk._ingress.builtin.bindings import bind
from sdk._protos.descriptors import with_imports
from sdk.service import Cardinality

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

    from sdk._ingress.builtin.bindings import OpenStreams
    from sdk._xds.snapshot import Snapshot
    from sdk.context import ServicerContext
    from sdk.service import MethodBinding

# The messages of both versions differ only in their package, so one implementation serves both.
SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def serialize_descriptors(files: Iterable[FileDescriptor]) -> tuple[str, bytes]:
    """Return the serialized ``FileDescriptorSet`` of a replica's services, and its digest.

    Args:
        files: Files of the services. Their imports are added, each before the first file that imports it.

    Returns:
        The SHA-256 digest in hexadecimal, and the serialized set.
    """
    data = with_imports(files).SerializeToString(deterministic=True)
    return hashlib.sha256(data).hexdigest(), data


class ReflectionServicer:
    """Serves ServerReflectionInfo from the routing table.

    With ``application`` metadata a client sees the services of that application, and without it those of all. If two
    applications have different files of the same name, clients see the file of the first application by name.

    Args:
        snapshot: Returns the routing table that Envoy serves.
        fetch: Returns the serialized ``FileDescriptorSet`` of a digest; None if it is unknown.
        built_in: Full names of the services that the proxy answers itself.
        streams: The open streams.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        fetch: Callable[[str], Awaitable[bytes | None]],
        built_in: frozenset[str],
        streams: OpenStreams,
    ) -> None:
        self._snapshot = snapshot
        self._fetch = fetch
        self._built_in = built_in
        self._streams = streams
        self._sets: dict[str, bytes] = {}
        self._servicers: dict[str, Any] = {}
        self._version = -1

    def bindings(self) -> list[MethodBinding]:
        """Return the methods of both versions."""
        request, response = pb.ServerReflectionRequest, pb.ServerReflectionResponse
        return [
            bind(f"/{service}/ServerReflectionInfo", self.info, request, response, Cardinality.STREAM_STREAM)
            for service in SERVICES
        ]

    async def info(self, requests: AsyncIterator[Any], grpc_context: ServicerContext) -> AsyncIterator[Any]:
        """Yield the answer to each request."""
        with self._streams.place():
            servicer = await self._servicer(grpc_context.application() or "")
            async for response in servicer.ServerReflectionInfo(requests, grpc_context):
                yield response

    async def _servicer(self, application: str) -> Any:
        snapshot = self._snapshot()
        if snapshot.version != self._version:
            self._version = snapshot.version
            self._servicers.clear()
            digests = {d.descriptors for known in snapshot.applications for d in known.deployments}
            self._sets = {digest: data for digest, data in self._sets.items() if digest in digests}
        if application not in self._servicers:
            deployments = [
                deployment
                for known in snapshot.applications
                if not application or known.name == application
                for deployment in known.deployments
            ]
            pool = DescriptorPool()
            for file in _built_in_files():
                pool.Add(file)
            for digest in dict.fromkeys(deployment.descriptors for deployment in deployments):
                _add_files(pool, FileDescriptorSet.FromString(await self._files(digest)).file)
            services = self._built_in.union(*(deployment.services for deployment in deployments))
            self._servicers[application] = implementation.ReflectionServicer(services, pool)
        return self._servicers[application]

    async def _files(self, digest: str) -> bytes:
        if digest not in self._sets:
            data = await self._fetch(digest) if digest else None
            if data is None:
                return b""
            self._sets[digest] = data
        return self._sets[digest]


def _add_files(pool: DescriptorPool, files: Iterable[FileDescriptorProto]) -> None:
    for file in files:
        with contextlib.suppress(TypeError):  # the pool has a file of this name, or one with the same symbols
            pool.Add(file)


def _built_in_files() -> Iterable[FileDescriptorProto]:
    for descriptor in (health_pb2.DESCRIPTOR, pb.DESCRIPTOR):
        file = FileDescriptorProto()
        descriptor.CopyToProto(file)
        yield file
    yield _renamed(file, "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1alpha", "grpc.reflection.v1")
    ours = FileDescriptorProto()
    serve_api_pb2.DESCRIPTOR.CopyToProto(ours)
    served = _renamed(ours, "ray/serve/serve_api.proto", ours.package, "ray.serve")
    service = served.service.add(name="RayServeAPIService")
    for name in ("ListApplications", "Healthz"):
        service.method.add(name=name, input_type=f".ray.serve.{name}Request", output_type=f".ray.serve.{name}Response")
    yield served


def _renamed(file: FileDescriptorProto, name: str, old: str, new: str) -> FileDescriptorProto:
    """Return a copy of a file with another name and package, and with all references to the package replaced."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    copy.name, copy.package = name, new
    for message in copy.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{old}.", f".{new}.")
    for service in copy.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{old}.", f".{new}.")
            method.output_type = method.output_type.replace(f".{old}.", f".{new}.")
    return copy
