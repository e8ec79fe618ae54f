# mypy: ignore-errors
"""Hand-written equivalent of generated code for small protos, so that the checks are tested without `sdk codegen`."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from sdk._proto_files.fingerprint import fingerprint
from sdk.deployment import ServicerBase
from sdk.service import Cardinality, Method, Service, Shim


def _file(package: str, *messages: str) -> Any:
    proto = FileDescriptorProto(name=f"checks/{package}.proto", package=f"checks.{package}", syntax="proto3")
    for name in messages:
        outer, _, inner = name.partition(".")
        message = proto.message_type.add(name=outer)
        if inner:
            message.nested_type.add(name=inner)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(proto.SerializeToString())
    return pool.FindFileByName(proto.name)


def _message(file: Any, name: str) -> Any:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(f"{file.package}.{name}")
    return message_factory.GetMessageClass(descriptor)


GREET = _file("greet", "HelloRequest", "HelloReply", "Outer.Inner")
OTHER = _file("other", "HelloReply")

HelloRequest = _message(GREET, "HelloRequest")
HelloReply = _message(GREET, "HelloReply")
Inner = _message(GREET, "Outer.Inner")
OtherReply = _message(OTHER, "HelloReply")

UNARY, DOWN, UP, BOTH = Cardinality


def make_base(name: str, *rpcs: tuple[Any, ...], line: int = 5) -> Any:
    """Return the generated base of a service.

    Args:
        name: The service's name.
        *rpcs: Name, cardinality, and perhaps request class, response class and Python name of each.
        line: Line of the service; its RPCs are on the lines below.
    """
    methods = tuple(_method(name, line + i, *rpc) for i, rpc in enumerate(rpcs, start=1))
    full_name = f"checks.greet.{name}"
    service = Service(full_name, "greet.proto", methods, GREET, fingerprint(GREET.serialized_pb), line)
    shim = type(f"{name}Shim", (Shim,), {"service": service})
    body = {method.python_name: _unimplemented for method in methods}
    return type(f"{name}Base", (ServicerBase,), {**body, "__grpc_shim__": shim})


def _method(
    service: str,
    line: int,
    name: str,
    cardinality: Cardinality,
    request: Any = HelloRequest,
    response: Any = HelloReply,
    python_name: str | None = None,
) -> Method:
    path = f"/checks.greet.{service}/{name}"
    return Method(name, python_name or name, path, cardinality, request, response, line)


def _unimplemented(self: Any, request: Any, /, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError


Greeter = make_base("Greeter", ("SayHello", UNARY))
Downloader = make_base("Downloader", ("Down", DOWN))
Uploader = make_base("Uploader", ("Up", UP))
Talker = make_base("Talker", ("Both", BOTH))
