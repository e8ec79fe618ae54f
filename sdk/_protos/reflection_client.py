"""Client of gRPC server reflection, v1, with v1alpha for servers that do not have v1.

Each round of requests is one call: all requests are sent at once, and the responses arrive in the same order. If a
server responds with a file but without its imports, the next round asks for those. See
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from sdk._gen import reflection_pb2 as pb
from sdk._proto_files.order import imports_first
from sdk._protos.descriptors import well_known
from sdk.errors import ServerError

# Their messages are the same except for the package, which is not encoded.
_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_TIMEOUT_S = 10.0


class NoReflectionError(ServerError):
    """A server has no reflection. The caller needs its protos or descriptors from another source."""


class ReflectionClient:
    """Client of the reflection service of one server. Its methods block; threads may share it.

    Args:
        channel: A channel to the server.
        metadata: Metadata of every call; ``("application", NAME)`` selects one application of the SDK's ingress.
        timeout: Seconds that a round of requests may take.
        target: The server as the user named it, for messages.

    Example:
        >>> import grpc
        >>> with grpc.insecure_channel("localhost:9000") as channel:  # doctest: +SKIP
        ...     reflection = ReflectionClient(channel, target="localhost:9000")
        ...     reflection.services()
        ['grpc.health.v1.Health', 'userdefinedprotos.UserDefinedService']
    """

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        *,
        timeout: float = _TIMEOUT_S,
        target: str = "",
    ) -> None:
        self._channel = channel
        self._metadata = tuple(metadata)
        self._timeout = timeout
        self._who = f"The server at {target}" if target else "The server"
        self._version = ""

    def services(self) -> list[str]:
        """Return the full names of the services, sorted.

        Raises:
            ServerError: The server can't be reached, or it has no reflection.
        """
        (answer,) = self._ask([pb.ServerReflectionRequest(list_services="")])
        if answer.HasField("error_response"):
            raise ServerError(f"{self._who} does not list its services: {_reason(answer)}")
        return sorted(service.name for service in answer.list_services_response.service)

    def file_descriptor_set(self, symbols: Iterable[str]) -> FileDescriptorSet:
        """Return the files that define symbols, and all that those files import, each after its own imports.

        Args:
            symbols: Full names of services, messages, enums…

        Raises:
            ServerError: The server can't be reached, has no reflection, or does not know a symbol.
        """
        wanted = list(dict.fromkeys(symbols))
        questions = [pb.ServerReflectionRequest(file_containing_symbol=symbol) for symbol in wanted]
        files: dict[str, FileDescriptorProto] = {}
        for symbol, answer in zip(wanted, self._ask(questions), strict=True):
            if answer.HasField("error_response"):
                raise ServerError(self._unknown(symbol, answer))
            self._add(files, answer)
        while missing := _missing(files):
            questions = [pb.ServerReflectionRequest(file_by_filename=name) for name in missing]
            for name, answer in zip(missing, self._ask(questions), strict=True):
                if not answer.HasField("error_response"):
                    self._add(files, answer)
                if name not in files:
                    files[name] = self._unanswered(name, answer)
        ordered = imports_first(files, lambda name: files[name].dependency)
        return FileDescriptorSet(file=[files[name] for name in ordered])

    def _ask(self, questions: Sequence[pb.ServerReflectionRequest]) -> list[Any]:
        """Return one response for each request, from the newest version that the server has."""
        if not questions:
            return []
        for version in (self._version,) if self._version else _VERSIONS:
            call = self._channel.stream_stream(
                f"/{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=pb.ServerReflectionRequest.SerializeToString,
                response_deserializer=pb.ServerReflectionResponse.FromString,
            )
            try:
                answers = list(call(iter(questions), timeout=self._timeout, metadata=self._metadata))
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    continue
                raise ServerError(self._failed(error)) from None
            if len(answers) != len(questions):
                raise ServerError(f"{self._who} answered {len(answers)} of {len(questions)} reflection requests.")
            self._version = version
            return answers
        raise NoReflectionError(
            f"{self._who} has no server reflection: pass its protos or descriptors as a file instead."
        )

    def _failed(self, error: Any) -> str:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return f"{self._who} can't be reached: {error.details()}"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{self._who} did not answer the reflection request within {self._timeout:g} s."
        return f"{self._who} refuses reflection with {error.code().name}: {error.details()}"

    def _unknown(self, symbol: str, answer: Any) -> str:
        if answer.error_response.error_code != grpc.StatusCode.NOT_FOUND.value[0]:
            return f"{self._who} does not describe {symbol!r}: {_reason(answer)}"
        known = self.services()
        near = difflib.get_close_matches(symbol, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'no service'}"
        return f"{self._who} does not know {symbol!r}; {hint}"

    def _add(self, files: dict[str, FileDescriptorProto], answer: Any) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError:
                raise ServerError(f"{self._who} sent a file descriptor that can't be parsed.") from None
            files.setdefault(file.name, file)

    def _unanswered(self, name: str, answer: Any) -> FileDescriptorProto:
        """Return a file that the server did not send: a well-known one, which every client has."""
        if (file := well_known(name)) is not None:
            return file
        raise ServerError(f"{self._who} imports {name!r} and does not describe it: {_reason(answer)}")


def _reason(answer: Any) -> str:
    error = answer.error_response
    return error.error_message or f"error {error.error_code}"


def _missing(files: dict[str, FileDescriptorProto]) -> list[str]:
    imported = (name for file in files.values() for name in file.dependency)
    return list(dict.fromkeys(name for name in imported if name not in files))
