"""Run by test_generated.py with the folder of generated code: imports it and compares it with the protos."""

# mypy: disable-error-code="import-not-found"
# (The generated modules exist only while the tests run.)

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import awkward_pb2
import awkward_sdk
import user_defined_protos_sdk
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from shapes import awkward_pb2 as shapes_awkward_pb2

from sdk.service import Cardinality, Service

# (grpc itself imports grpc_tools where that is installed.)
assert not {name.partition(".")[0] for name in sys.modules} & {"ray", "jinja2", "mypy_protobuf"}

service = awkward_sdk.AWKWARD
assert isinstance(service, Service)
assert service.full_name == "test.awkward.Awkward"
assert service.file is awkward_pb2.DESCRIPTOR
assert [method.cardinality for method in service.methods] == list(Cardinality)
assert [method.name for method in service.methods] == ["Unary", "Down", "Up", "Both"]
assert service["Unary"].response is awkward_pb2.Outer.Inner.Deepest
assert service["Up"].request is StringValue
assert service["Up"].response is Empty
assert service["Both"].request is shapes_awkward_pb2.Square
assert awkward_sdk.RETIRED["Old"].deprecated
assert service["Down"].idempotency == "no_side_effects"
assert not service["Down"].deprecated
assert service["Up"].idempotency == "idempotent"

lines = (Path(__file__).parent / "protos" / "awkward.proto").read_text().splitlines()
assert lines[service.line - 1].startswith("service Awkward")
for method in service.methods:
    assert f"rpc {method.name}(" in lines[method.line - 1]

implementation = awkward_sdk.AwkwardBase()
bindings = awkward_sdk.AwkwardShim.bindings(implementation)
assert [binding.method for binding in bindings] == list(service.methods)
assert bindings[0].handler == implementation.Unary
assert awkward_sdk.AwkwardBase.__grpc_shim__ is awkward_sdk.AwkwardShim
assert 'A backslash \\n \\ and """triple quotes"""' in awkward_sdk.AwkwardBase.__doc__
assert awkward_sdk.AwkwardBase.Unary.__doc__ == '"Quoted" from the start'
try:
    implementation.Unary(awkward_pb2.Outer())
except NotImplementedError:
    pass
else:
    raise AssertionError("the base implements nothing")

assert awkward_sdk.ASYNC_["import"].python_name == "import_"
assert awkward_sdk.A_SYNC.methods == ()


# Who implements what is deprecated is not warned (warnings are errors here); who calls it is.
class Retired(awkward_sdk.RetiredBase):
    def Old(self, request: awkward_pb2.Outer) -> awkward_pb2.Outer:
        return request


assert Retired().Old(awkward_pb2.Outer()) == awkward_pb2.Outer()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    client = awkward_sdk.RetiredSyncClient("localhost:1")
    assert repr(client.Old) == "<SyncUnaryUnary /test.awkward.Retired/Old>"
    assert client.Old is client.Old
assert [str(warning.message) for warning in caught][:2] == [
    "test.awkward.Retired is deprecated in awkward.proto",
    "/test.awkward.Retired/Old is deprecated in awkward.proto",
]
assert {warning.filename for warning in caught} == {__file__}
client.close()
assert user_defined_protos_sdk.USER_DEFINED_SERVICE["__call__"].path == "/userdefinedprotos.UserDefinedService/__call__"
