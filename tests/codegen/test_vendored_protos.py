"""A tree with a copy of a standard proto: generated with ``--package``, bound, and served next to our own parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from codegen.sync import Options, update
from sdk._extras import import_with_extra
from sdk.errors import ApplicationError
from tests.support.command_server import command_server
from tests.support.project import Sdk, outcome, put

STATUS = """
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
option java_package = "com.google.rpc";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
"""

HEALTH = """
syntax = "proto3";
package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
"""

REFLECTION = """
syntax = "proto3";
package grpc.reflection.v1;
message ServerReflectionRequest { string host = 1; }
message ServerReflectionResponse { string valid_host = 1; }
service ServerReflection {
  rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse);
}
"""

# Copies of protos that ours, or those of packages that we import, have too; some are old, some have other contents.
OTHERS = {
    "google/rpc/error_details.proto": """
syntax = "proto3";
package google.rpc;
message BadRequest {
  message FieldViolation { string field = 1; string description = 2; }
  repeated FieldViolation field_violations = 1;
}
""",
    "google/api/http.proto": """
syntax = "proto3";
package google.api;
message HttpRule { string selector = 1; oneof pattern { string get = 2; string post = 4; } string body = 7; }
""",
    "google/api/annotations.proto": """
syntax = "proto3";
package google.api;
import "google/api/http.proto";
import "google/protobuf/descriptor.proto";
extend google.protobuf.MethodOptions { HttpRule http = 72295728; }
""",
    "buf/validate/validate.proto": """
syntax = "proto2";
package buf.validate;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { optional FieldConstraints field = 1159; }
message FieldConstraints { optional bool required = 25; }
""",
    "validate/validate.proto": """
syntax = "proto2";
package validate;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { optional FieldRules rules = 1071; }
message FieldRules { optional bool required = 25; }
""",
    "grpc/channelz/v1/channelz.proto": """
syntax = "proto3";
package grpc.channelz.v1;
message Channel { string name = 1; }
""",
    "google/protobuf/struct.proto": """
syntax = "proto3";
package google.protobuf;
message Struct { map<string, Value> fields = 1; }
message Value { oneof kind { string string_value = 3; } }
""",
    "google/protobuf/any.proto": """
syntax = "proto3";
package google.protobuf;
message Any { string type_url = 1; bytes value = 2; }
""",
}

EVERYTHING = """
syntax = "proto3";
package shop;
import "google/rpc/error_details.proto";
import "google/api/annotations.proto";
import "google/api/http.proto";
import "buf/validate/validate.proto";
import "validate/validate.proto";
import "grpc/channelz/v1/channelz.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/any.proto";
message Ask { string text = 1 [(buf.validate.field).required = true, (validate.rules).required = true]; }
message Answer {
  google.rpc.BadRequest of_the_copy = 1;
  grpc.channelz.v1.Channel channel = 2;
  google.protobuf.Struct struct = 3;
  google.protobuf.Any any = 4;
  google.api.HttpRule rule = 5;
}
service Shop {
  rpc Order(Ask) returns (Answer) { option (google.api.http) = {post: "/order"}; }
}
"""

SERVICES = """
syntax = "proto3";
package shop;
import "google/rpc/status.proto";
import "grpc/health/v1/health.proto";
import "grpc/reflection/v1/reflection.proto";
message Ask { string text = 1; }
message Answer {
  google.rpc.Status of_the_copy = 1;
  grpc.health.v1.HealthCheckResponse health = 2;
  grpc.reflection.v1.ServerReflectionResponse reflection = 3;
}
service Shop { rpc Order(Ask) returns (Answer); }
"""

APP = """
import sys

import grpc
from google.protobuf.wrappers_pb2 import StringValue

import sdk
import sdk.testing
from acme.gen.shop_pb2 import Answer, Ask
from acme.gen.shop_sdk import ShopBase, ShopSyncClient
from sdk import RpcError, grpc_deployment


@grpc_deployment
class Shop(ShopBase):
    async def Order(self, request: Ask) -> Answer:
        if request.text == "wrong":
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "rich", errors=[StringValue(value="the text")])
        answer = Answer()
        for field in Answer.DESCRIPTOR.fields:
            getattr(answer, field.name).SetInParent()
        return answer


if __name__ == "__main__":
    with sdk.testing.serve(Shop.bind()) as server:
        client = server.client(ShopSyncClient)
        answer = client.Order(Ask(text="right"))
        assert [field.name for field, _ in answer.ListFields()] == [field.name for field in Answer.DESCRIPTOR.fields]
        try:
            client.Order(Ask(text="wrong"))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
            assert sdk.error_details(error) == [StringValue(value="the text")]
        else:
            sys.exit("no error")
"""


def test_copies_of_the_protos_of_standard_services_are_served(tmp_path: Path) -> None:
    copies = {
        "google/rpc/status.proto": STATUS,
        "grpc/health/v1/health.proto": HEALTH,
        "grpc/reflection/v1/reflection.proto": REFLECTION,
    }
    serve(tmp_path, {**copies, "shop.proto": SERVICES})


def test_copies_of_many_standard_protos_are_served(tmp_path: Path) -> None:
    serve(tmp_path, {**OTHERS, "shop.proto": EVERYTHING})


def serve(folder: Path, protos: dict[str, str]) -> None:
    """Generate the code of protos, and run the application."""
    for proto, text in protos.items():
        path = folder / "protos" / proto
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    out = folder / "out"
    (out / "acme").mkdir(parents=True)
    (out / "acme" / "__init__.py").touch()
    update(Options((folder / "protos",), out / "acme" / "gen", package="acme.gen"))
    (out / "app.py").write_text(APP)
    done = subprocess.run([sys.executable, "app.py"], cwd=out, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


RAYS = {
    "ray/serve": ("ray.serve.HealthzRequest", 'syntax = "proto3"; package ray.serve; message HealthzRequest {}'),
    "grpc/reflection/v1alpha/reflection": (
        "grpc.reflection.v1alpha.ErrorResponse",
        'syntax = "proto3"; package grpc.reflection.v1alpha; message ErrorResponse {}',
    ),
}


@pytest.mark.parametrize("proto", RAYS)
def test_a_copy_of_a_proto_that_ray_serve_loads_is_told(sdk: Sdk, proto: str) -> None:
    name, text = RAYS[proto]
    mine = 'syntax = "proto3"; package ray.serve; message Mine {}'
    put(
        {
            f"protos/{proto}.proto": text,
            "protos/mine.proto": mine,
            "app.py": f"import acme.gen.{proto.replace('/', '.')}_pb2",
        }
    )
    (warning,) = outcome(sdk("protos", "--out", "acme/gen", "--package", "acme.gen"))[2].splitlines()
    assert warning.startswith(f"protos/{proto}.proto: warning: Ray Serve loads {name} from ")
    assert outcome(sdk("protos", "--exclude", proto.partition("/")[0], "--out", "other"))[2] == ""
    # This command runs in a process that has loaded Ray's, as a replica has.
    done = command_server().run(["check", "app"], Path.cwd(), os.environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"it defines {name}, and so does " in done.stderr
    assert "Leave out your copy of the proto (`sdk codegen --exclude`)" in done.stderr


def test_rays_copy_is_named_when_it_comes_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(
        FileDescriptorProto(
            name="mine.proto", package="a", message_type=[DescriptorProto(name="B")]
        ).SerializeToString()
    )
    monkeypatch.setattr(descriptor_pool, "Default", lambda: pool)
    (tmp_path / "rays_pb2.py").write_text(
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        'file = descriptor_pb2.FileDescriptorProto(name="rays.proto", package="a", message_type=[{"name": "B"}])\n'
        "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ApplicationError, match=r"rays_pb2.py can't be loaded: it defines a.B, and so does mine.proto, which"
    ):
        import_with_extra("rays_pb2", "`sdk run`")
