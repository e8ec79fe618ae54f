#!/usr/bin/env bash
# protobuf's C implementation (upb) does not give back the descriptor that it was given: `DESCRIPTOR.serialized_pb` of a
# loaded _pb2 module is not the embedded bytes when a field has a float, double or bytes default.
#
# Versions: protobuf 7.36.2, grpcio-tools 1.85.1 (protoc). Valid input: proto2 files.
# Expected: `serialized_pb` equals the bytes of `AddSerializedFile(...)`, as in protobuf's Python implementation.
# Seen: the default 0.1 of a float comes back as 0.100000001, 6.4 of a double as 6.4000000000000004, and the byte \177
# without its escape. A hash over `serialized_pb` depends on the implementation.
# Also seen: protoc takes a denormal default of a float (1e-45), but upb refuses to load the module that protoc makes
# ("Invalid default"); the Python implementation loads it.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'protobuf==7.36.2' 'grpcio-tools==1.85.1'
cd "$folder"
cat > values.proto <<'PROTO'
syntax = "proto2";
message Values {
  optional float tenth = 1 [default = 0.1];
  optional double digits = 2 [default = 6.4];
  optional bytes escaped = 3 [default = "\177"];
}
PROTO
cat > denormal.proto <<'PROTO'
syntax = "proto2";
message Denormal { optional float least = 1 [default = 1e-45]; }
PROTO
venv/bin/python -m grpc_tools.protoc -I. --python_out=. --descriptor_set_out=values.binpb values.proto denormal.proto
cat > show.py <<'PYTHON'
import importlib

import google.protobuf
from google.protobuf import descriptor_pb2
from google.protobuf.internal import api_implementation

given = descriptor_pb2.FileDescriptorSet.FromString(open("values.binpb", "rb").read()).file[0]
loaded = descriptor_pb2.FileDescriptorProto.FromString(importlib.import_module("values_pb2").DESCRIPTOR.serialized_pb)
defaults = [[field.default_value for field in file.message_type[0].field] for file in (given, loaded)]
try:
    importlib.import_module("denormal_pb2")
    denormal = "loads"
except TypeError as error:
    denormal = str(error)
print(f"protobuf {google.protobuf.__version__} {api_implementation.Type()}: {defaults[0]} -> {defaults[1]}; denormal: {denormal}")
PYTHON
upb=$(PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=upb venv/bin/python show.py)
python=$(PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python venv/bin/python -W ignore show.py)
printf '%s\n' "$upb" "$python"
[[ $upb == *"'0.1', '6.4', '\\\\177'] -> ['0.100000001', '6.4000000000000004', '\\x7f']"*"Invalid default"* ]]
[[ $python == *"-> ['0.1', '6.4', '\\\\177']; denormal: loads" ]]
