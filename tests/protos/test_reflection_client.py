"""The reflection client against real grpcio servers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from sdk._protos.reflection_client import ReflectionClient
from sdk.errors import ServerError
from tests.support.ports import free_port

V1, V1ALPHA = "grpc.reflection.v1", "grpc.reflection.v1alpha"
WELL_KNOWN = FileDescriptorProto(name="google/protobuf/empty.proto", package="google.protobuf", syntax="proto3")
WELL_KNOWN.message_type.add(name="Empty")
BASE = FileDescriptorProto(name="base.proto", package="r", syntax="proto3", dependency=["google/protobuf/empty.proto"])
BASE.message_type.add(name="Base").field.add(name="e", number=1, type=11, label=1, type_name=".google.protobuf.Empty")
SHOP = FileDescriptorProto(name="shop.proto", package="r", syntax="proto3", dependency=["base.proto"])
SHOP.service.add(name="Shop").method.add(name="Buy", input_type=".r.Base", output_type=".google.protobuf.Empty")
SHOP.dependency.append("google/protobuf/empty.proto")
ALL = ["google/protobuf/empty.proto", "base.proto", "shop.proto"]


class OneFileAtATime(reflection_pb2_grpc.ServerReflectionServicer):
    """Responds with a file without its imports, as grpc-go does, and has no well-known files, as grpc-node."""

    def __init__(self, *files: FileDescriptorProto) -> None:
        self._files = {file.name: file for file in files}
        self.calls = 0

    def ServerReflectionInfo(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        for request in requests:
            file = self._files.get(request.file_by_filename or "shop.proto")
            response = reflection_pb2.ServerReflectionResponse()
            if request.HasField("list_services"):
                response.list_services_response.service.add(name="r.Shop")
            elif file is not None and request.file_containing_symbol in ("", "r.Shop"):
                response.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
            else:
                response.error_response.error_code = 5
                response.error_response.error_message = "no such file"
            yield response


def grpcio_servicer() -> Any:
    pool = DescriptorPool()
    for file in (WELL_KNOWN, BASE, SHOP):
        pool.Add(file)
    return reflection.ReflectionServicer(["r.Shop", "grpc.health.v1.Health"], pool)


@contextlib.contextmanager
def serving(servicer: Any, *versions: str, answer: Callable[..., Any] | None = None) -> Iterator[ReflectionClient]:
    handler = grpc.stream_stream_rpc_method_handler(
        answer or (servicer.ServerReflectionInfo if servicer else None),
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        for version in versions:
            handlers = {"ServerReflectionInfo": handler}
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"{version}.ServerReflection", handlers),)
            )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield ReflectionClient(channel, (("application", "a"),), timeout=5, target="there")
        finally:
            server.stop(None).wait()


def names(found: Any) -> list[str]:
    return [file.name for file in found.file]


@pytest.mark.parametrize("versions", [(V1,), (V1ALPHA,), (V1, V1ALPHA)], ids="+".join)
def test_services_and_their_files_from_a_grpcio_server(versions: tuple[str, ...]) -> None:
    with serving(grpcio_servicer(), *versions) as asked:
        assert asked.services() == ["grpc.health.v1.Health", "r.Shop"]
        found = asked.file_descriptor_set(["r.Shop"])
        assert names(found) == ALL
        assert found.file[-1] == SHOP
        assert names(asked.file_descriptor_set(["r.Base", "r.Base.e"])) == ALL[:2]
        assert names(asked.file_descriptor_set([])) == []
        DescriptorPool().Add(found.file[0])


def test_imports_are_requested_from_a_server_that_omits_them() -> None:
    servicer = OneFileAtATime(SHOP, BASE)
    with serving(servicer, V1) as asked:
        found = asked.file_descriptor_set(["r.Shop"])
        assert names(found) == ALL, "protobuf's own file is the one that is installed here"
        assert found.file[0].message_type[0].name == "Empty"
    assert servicer.calls == 2, "one call a round, and none for what v1alpha would say"
    assert servicer.metadata["application"] == "a"


def test_a_file_that_imports_itself_does_not_loop() -> None:
    loop = FileDescriptorProto(name="shop.proto", dependency=["shop.proto"])
    with serving(OneFileAtATime(loop), V1) as asked:
        assert names(asked.file_descriptor_set(["r.Shop"])) == ["shop.proto"]


def test_unknown_symbols_are_reported() -> None:
    with serving(grpcio_servicer(), V1ALPHA) as asked:
        with pytest.raises(
            ServerError, match=r"^The server at there does not know 'r\.Shpo'; did you mean 'r\.Shop'\?$"
        ):
            asked.file_descriptor_set(["r.Shpo"])
        with pytest.raises(ServerError, match=r"know 'zzz'; it has grpc\.health\.v1\.Health, r\.Shop$"):
            asked.file_descriptor_set(["r.Shop", "zzz"])
    with (
        serving(OneFileAtATime(SHOP), V1) as asked,
        pytest.raises(ServerError, match=r"^The server at there imports 'base\.proto' and does not describe it: no"),
    ):
        asked.file_descriptor_set(["r.Shop"])


def test_a_server_without_reflection() -> None:
    expected = "^The server at there has no server reflection: pass its protos or descriptors as a file instead.$"
    with serving(None) as asked, pytest.raises(ServerError, match=expected):
        asked.services()


def refuse(requests: Any, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")


def say_less(requests: Any, context: grpc.ServicerContext) -> Any:
    return iter(())


def say_error(requests: Any, context: grpc.ServicerContext) -> Any:
    for _ in requests:
        yield reflection_pb2.ServerReflectionResponse(error_response=reflection_pb2.ErrorResponse(error_code=13))


def say_nonsense(requests: Any, context: grpc.ServicerContext) -> Any:
    for _ in requests:
        response = reflection_pb2.ServerReflectionResponse()
        response.file_descriptor_response.file_descriptor_proto.append(b"\xff")
        yield response


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refuse, "refuses reflection with PERMISSION_DENIED: not you$"),
        (say_less, "answered 0 of 1 reflection requests.$"),
        (say_error, "does not describe 'r.Shop': error 13$"),
        (say_nonsense, "sent a file descriptor that can't be parsed.$"),
    ],
)
def test_an_invalid_response(answer: Callable[..., Any], said: str) -> None:
    with serving(None, V1, answer=answer) as asked, pytest.raises(ServerError, match=f"^The server at there {said}"):
        asked.file_descriptor_set(["r.Shop"])


def test_a_server_that_does_not_respond_or_exist() -> None:
    with grpc.insecure_channel(f"127.0.0.1:{free_port()}") as channel:
        with pytest.raises(ServerError, match=r"^The server at x:1 can't be reached: failed to connect"):
            ReflectionClient(channel, target="x:1").services()
        with pytest.raises(ServerError, match=r"^The server can't be reached"):
            ReflectionClient(channel).services()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            grpc.insecure_channel(address) as channel,
            pytest.raises(ServerError, match=r"^The server did not answer the reflection request within 0.2 s\.$"),
        ):
            ReflectionClient(channel, timeout=0.2).services()
