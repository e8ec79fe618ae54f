from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from codegen.sync import Options, update
from tests.support.project import project, sdk

__all__ = ["project", "sdk"]  # fixtures for every test here

HERE = Path(__file__).parent
REPO = HERE.parent.parent
GUIDE = REPO / "protos" / "user_defined_protos.proto"
AWKWARD = HERE / "protos"


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything generated from the guide's proto and from the protos beside this file."""
    out = tmp_path_factory.mktemp("generated")
    update(Options((GUIDE, AWKWARD), out))
    return out


@pytest.fixture
def request_for() -> Callable[..., CodeGeneratorRequest]:
    """Builds what protoc would send for one proto file with one service ``Greeter``."""

    def build(
        rpcs: Sequence[str] = ("SayHello",),
        *,
        name: str = "greet.proto",
        service: str = "Greeter",
        messages: Sequence[str] = ("Hello",),
        uses: str = "Hello",
        parameter: str = "",
    ) -> CodeGeneratorRequest:
        file = FileDescriptorProto(name=name, package="greet", syntax="proto3")
        for message in messages:
            file.message_type.add(name=message)
        described = file.service.add(name=service)
        for rpc in rpcs:
            described.method.add(name=rpc, input_type=f".greet.{uses}", output_type=f".greet.{uses}")
        return CodeGeneratorRequest(file_to_generate=[name], proto_file=[file], parameter=parameter)

    return build
