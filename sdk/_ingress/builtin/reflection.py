"""Server reflection, v1 and v1alpha, from the descriptors of the replicas. It imports no user code.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, SourceCodeInfo
from google.protobuf.descriptor_pool import DescriptorPool

from sdk._gen import health_pb2, serve_api_pb2
from sdk._gen import reflection_pb2 as pb
from sdk._ingress.builtin.bindings import bind
from sdk._protos.descriptors import add_comments, with_imports
from sdk.service import Cardinality

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pb2 import DescriptorProto

    from sdk._ingress.builtin.bindings import OpenStreams
    from sdk._xds.snapshot import Snapshot
    from sdk.context import ServicerContext
    from sdk.service import MethodBinding

# The messages of both versions differ only in their package, so one implementation serves both.
SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class Described(Protocol):
    """A service, as far as clients can learn about it."""

    @property
    def file(self) -> FileDescriptor:
        """Its file."""

    @property
    def comments(self) -> Mapping[str, str]:
        """The comments of what it uses, by full name."""


def serialize_descriptors(services: Iterable[Described]) -> tuple[str, bytes]:
    """Return the serialized ``FileDescriptorSet`` of a replica's services, and its digest.

    Args:
        services: The services. The imports of their files are added, each before the first file that imports it.

    Returns:
        The SHA-256 digest in hexadecimal, and the serialized set.
    """
    known = list(services)
    files = with_imports(service.file for service in known)
    add_comments(files, {name: text for service in known for name, text in service.comments.items()})
    data = files.SerializeToString(deterministic=True)
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
        self._answerers: dict[str, _Answerer] = {}
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
            answerer = await self._answerer(grpc_context.application() or "")
            async for request in requests:
                yield answerer.answer(request)

    async def _answerer(self, application: str) -> _Answerer:
        snapshot = self._snapshot()
        if snapshot.version != self._version:
            # What an earlier version still waits for is kept with that version.
            self._version, self._answerers = snapshot.version, {}
            digests = {d.descriptors for known in snapshot.applications for d in known.deployments}
            self._sets = {digest: data for digest, data in self._sets.items() if digest in digests}
        answerers = self._answerers
        if application not in answerers:
            deployments = [
                deployment
                for known in snapshot.applications
                if not application or known.name == application
                for deployment in known.deployments
            ]
            needed = dict.fromkeys(deployment.descriptors for deployment in deployments if deployment.descriptors)
            sets = [await self._files(digest) for digest in needed]
            known = _Files()
            for data in sets:
                known.add(FileDescriptorSet.FromString(data or b"").file)
            services = self._built_in.union(*(deployment.services for deployment in deployments))
            answerer = _Answerer(services, known)
            if None in sets:  # a replica is about to bring it
                return answerer
            answerers[application] = answerer
        return answerers[application]

    async def _files(self, digest: str) -> bytes | None:
        if digest not in self._sets:
            data = await self._fetch(digest)
            if data is None:
                return None
            self._sets[digest] = data
        return self._sets[digest]


class _Files:
    """Files in a pool, which does not keep their comments, and the comments.

    Attributes:
        pool: The files.
        comments: The comments of each file by its name.
    """

    def __init__(self) -> None:
        self.pool = DescriptorPool()
        self.comments: dict[str, SourceCodeInfo] = {}
        self._added: dict[str, FileDescriptorProto] = {}
        for file in _built_in_files():
            self.pool.Add(file)

    def add(self, files: Iterable[FileDescriptorProto]) -> None:
        """Add files. A file is left out if another one has its name, or one of its symbols."""
        for file in files:
            comments = SourceCodeInfo()
            comments.CopyFrom(file.source_code_info)
            file.ClearField("source_code_info")
            if file.name not in self._added:
                try:
                    self.pool.Add(file)
                except TypeError:
                    continue
                self._added[file.name], self.comments[file.name] = file, comments
            elif self._added[file.name] == file:  # of a deployment that serves another service of the file
                places = self.comments[file.name].location
                known = {tuple(place.path) for place in places}
                places.extend(place for place in comments.location if tuple(place.path) not in known)
                places.sort(key=lambda place: tuple(place.path))  # deployments register in any order


class _Answerer:
    """Answers requests from the files of one application, or of all.

    Args:
        services: Full names of the services.
        files: Their files.
    """

    def __init__(self, services: Iterable[str], files: _Files) -> None:
        self._services = [pb.ServiceResponse(name=name) for name in sorted(services)]
        self._files = files

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """Return the response to a request; what is not found is an error in the response."""
        response = pb.ServerReflectionResponse(original_request=request)
        try:
            self._fill(response, request)
        except KeyError:
            code, text = grpc.StatusCode.NOT_FOUND.value
            response.error_response.error_code, response.error_response.error_message = code, text
        return response

    def _fill(self, response: pb.ServerReflectionResponse, request: pb.ServerReflectionRequest) -> None:
        pool = self._files.pool
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                self._add_with_imports(response, pool.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                self._add_with_imports(response, pool.FindFileContainingSymbol(request.file_containing_symbol))
            case "file_containing_extension":
                wanted = request.file_containing_extension
                extended = pool.FindMessageTypeByName(wanted.containing_type)
                extension = pool.FindExtensionByNumber(extended, wanted.extension_number)
                self._add_with_imports(response, pool.FindFileContainingSymbol(extension.full_name))
            case "all_extension_numbers_of_type":
                extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                numbers = response.all_extension_numbers_response
                numbers.base_type_name = extended.full_name
                numbers.extension_number.extend(sorted(each.number for each in pool.FindAllExtensions(extended)))
            case "list_services":
                response.list_services_response.service.extend(self._services)
            case _:
                code, text = grpc.StatusCode.INVALID_ARGUMENT.value
                response.error_response.error_code, response.error_response.error_message = code, text

    def _add_with_imports(self, response: pb.ServerReflectionResponse, file: FileDescriptor) -> None:
        # The file first, as clients expect that read only one.
        for each in reversed(with_imports([file]).file):
            if each.name in self._files.comments:
                each.source_code_info.CopyFrom(self._files.comments[each.name])
            response.file_descriptor_response.file_descriptor_proto.append(each.SerializeToString())


def _built_in_files() -> Iterator[FileDescriptorProto]:
    """Yield the files of the services that the proxy answers, under the names that clients know."""
    health, reflection, served = (_proto_of(module) for module in (health_pb2, pb, serve_api_pb2))
    yield _renamed(health, "grpc/health/v1/health.proto", "grpc.health.v1")
    for version in ("v1alpha", "v1"):
        yield _renamed(reflection, f"grpc/reflection/{version}/reflection.proto", f"grpc.reflection.{version}")
    service = served.service.add(name="RayServeAPIService")
    for name in ("ListApplications", "Healthz"):
        types = {kind: f".{served.package}.{name}{kind}" for kind in ("Request", "Response")}
        service.method.add(name=name, input_type=types["Request"], output_type=types["Response"])
    yield _renamed(served, "ray/serve/serve_api.proto", "ray.serve")


def _proto_of(module: Any) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(proto)
    return proto


def _renamed(file: FileDescriptorProto, name: str, package: str) -> FileDescriptorProto:
    """Return a copy of a file with another name and package, and with all references to the package replaced."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    copy.name, copy.package = name, package
    old, new = f".{file.package}.", f".{package}."

    def rename_in(messages: Iterable[DescriptorProto]) -> None:
        for message in messages:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(old, new)
            rename_in(message.nested_type)

    rename_in(copy.message_type)
    for service in copy.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    return copy
