"""A tree with a copy of a standard proto: generated with ``--package``, bound, and served next to our own parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from codegen.sync import Options, update

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

SHOP = """
syntax = "proto3";
package shop;
import "{proto}";
message Ask {{ string text = 1; }}
message Answer {{ {type} of_the_copy = 1; }}
service Shop {{ rpc Order(Ask) returns (Answer); }}
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
        answer.of_the_copy.SetInParent()
        return answer


if __name__ == "__main__":
    with sdk.testing.serve(Shop.bind()) as server:
        client = server.client(ShopSyncClient)
        assert client.Order(Ask(text="right")).HasField("of_the_copy")
        try:
            client.Order(Ask(text="wrong"))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
            assert sdk.error_details(error) == [StringValue(value="the text")]
        else:
            sys.exit("no error")
"""


@pytest.mark.parametrize(
    ("proto", "type_", "text"),
    [
        ("google/rpc/status.proto", "google.rpc.Status", STATUS),
        ("grpc/health/v1/health.proto", "grpc.health.v1.HealthCheckResponse", HEALTH),
        ("grpc/reflection/v1/reflection.proto", "grpc.reflection.v1.ServerReflectionResponse", REFLECTION),
    ],
)
def test_a_copy_of_a_standard_proto_is_served(tmp_path: Path, proto: str, type_: str, text: str) -> None:
    protos = tmp_path / "protos"
    (protos / proto).parent.mkdir(parents=True)
    (protos / proto).write_text(text)
    (protos / "shop.proto").write_text(SHOP.format(proto=proto, type=type_))
    out = tmp_path / "out"
    (out / "acme").mkdir(parents=True)
    (out / "acme" / "__init__.py").touch()
    update(Options((protos,), out / "acme" / "gen", package="acme.gen"))
    (out / "app.py").write_text(APP)
    done = subprocess.run([sys.executable, "app.py"], cwd=out, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
