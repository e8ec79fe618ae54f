#!/usr/bin/env bash
# KServe and Triton give the same RPC two meanings: /inference.GRPCInferenceService/RepositoryModelLoad (and …Unload) has
# the model's name in field 1 for KServe, and in field 2 for Triton, whose field 1 is the name of a repository.
#
# Versions: tritonclient 2.73.0, kserve 0.21.0 (each with the protobuf that it asks for). Valid input: requests as each
# client writes them.
# Expected: both implement the Open Inference Protocol and share the service's name, the message's name and the path, so
# a client of one can load a model of the other. Inference, metadata and health are in fact the same.
# Seen: neither side fails to parse. KServe reads Triton's request as one for a model with an empty name, and Triton
# reads KServe's as one for no model of the repository that has the model's name. A server for both has to take field 1
# if field 2 is empty.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
# Two environments: the packages define the same messages, and one process can load only one of them.
for name in triton kserve; do python3 -m venv "$name"; done
triton/bin/pip install --quiet 'tritonclient[grpc]==2.73.0'
kserve/bin/pip install --quiet 'kserve==0.21.0'
cat > triton.py <<'PYTHON'
import sys

from tritonclient.grpc import service_pb2 as pb

if sys.argv[1] == "write":
    sys.stdout.write(pb.RepositoryModelLoadRequest(model_name="m").SerializeToString().hex())
else:
    read = pb.RepositoryModelLoadRequest.FromString(bytes.fromhex(sys.argv[2]))
    print(f"repository {read.repository_name!r}, model {read.model_name!r}")
PYTHON
cat > kserve_side.py <<'PYTHON'
import sys

from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

if sys.argv[1] == "write":
    sys.stdout.write(pb.RepositoryModelLoadRequest(model_name="m").SerializeToString().hex())
else:
    print(f"model {pb.RepositoryModelLoadRequest.FromString(bytes.fromhex(sys.argv[2])).model_name!r}")
PYTHON
by_kserve=$(triton/bin/python triton.py read "$(kserve/bin/python kserve_side.py write)")
by_triton=$(kserve/bin/python kserve_side.py read "$(triton/bin/python triton.py write)")
printf 'Triton reads a request of KServe: %s\nKServe reads a request of Triton: %s\n' "$by_kserve" "$by_triton"
[[ $by_kserve == "repository 'm', model ''" ]]
[[ $by_triton == "model ''" ]]
