"""Asks a gRPC server what it serves: server reflection, v1, and v1alpha where a server knows no v1.

Every round of questions is one call: all of them are sent at once and the answers come in their order. A server that
answers with a file alone is asked for the files that it imports in the next round.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb

from sdk._protos.descriptors import well_known
from sdk.errors import ServerError

# Their messages are the same but for the package, which is not on the wire.
_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_TIMEOUT_S = 10.0


class NoReflectionError(ServerError):
    """A server has no reflection. Whoever asks must know otherwise what it serves."""


class Reflection:
    """What a server says of its services. Blocking; may be used from several threads.

    Args:
        channel: A channel to the server.
        metadata: Pairs that go with every question; ``("application", NAME)`` asks about one application of ours.
        timeout: Seconds that a round of questions may take.
        target: How the user named the server, for messages.

    Example:
        >>> import grpc
        >>> with grpc.insecure_channel("localhost:9000") as channel:  # doctest: +SKIP
        ...     reflection = Reflection(channel, target="localhost:9000")
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
        """Return the files that define some symbols, and all that those import, each after its own imports.

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
        return FileDescriptorSet(file=_in_order(files))

    def _ask(self, questions: Sequence[pb.ServerReflectionRequest]) -> list[Any]:
        """Return one answer for each question, from the newest version that the server has."""
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
                raise ServerError(f"{self._who} answered {len(answers)} of {len(questions)} questions by reflection.")
            self._version = version
            return answers
        raise NoReflectionError(
            f"{self._who} has no server reflection: give its protos or descriptors as a file instead."
        )

    def _failed(self, error: Any) -> str:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return f"{self._who} can't be reached: {error.details()}"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{self._who} did not answer by reflection within {self._timeout:g} s."
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
                raise ServerError(f"{self._who} describes itself in a way that can't be read.") from None
            files.setdefault(file.name, file)

    def _unanswered(self, name: str, answer: Any) -> FileDescriptorProto:
        """Return a file that the server did not answer with: one of protobuf's own, which every client has."""
        if (file := well_known(name)) is not None:
            return file
        raise ServerError(f"{self._who} imports {name!r} and does not describe it: {_reason(answer)}")


def _reason(answer: Any) -> str:
    error = answer.error_response
    return error.error_message or f"error {error.error_code}"


def _missing(files: dict[str, FileDescriptorProto]) -> list[str]:
    imported = (name for file in files.values() for name in file.dependency)
    return list(dict.fromkeys(name for name in imported if name not in files))


def _in_order(files: dict[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    ordered: list[FileDescriptorProto] = []
    seen: set[str] = set()

    def add(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for imported in files[name].dependency:
                add(imported)
            ordered.append(files[name])

    for name in files:
        add(name)
    return ordered
