#!/usr/bin/env bash
# A protovalidate Validator keeps the rules of a message by its full name: a message of the same name in another
# descriptor pool is checked against the rules of the first.
#
# Versions: protovalidate 2.1.0, protobuf 7.36.2. Valid input: two versions of a proto file, each in its own pool.
# Expected: each class has the rules of its own descriptor.
# Seen: the class that is checked first decides for both: a message without rules is refused by the rules of the other
# version, and one with rules is not checked if the version without rules came first. A new Validator gives the right
# result. Programs that load two versions of a proto (comparison, proxies, plugins) need a Validator for each.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'protovalidate==2.1.0' 'protobuf==7.36.2'
cat > "$folder/show.py" <<'PYTHON'
from importlib.metadata import version

import protovalidate
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)

RULES = b"\xba\x48\x04\x72\x02\x10\x01"  # (buf.validate.field).string.min_len = 1


def message(with_rules):
    """Return the class of `acme.Item`, with or without a rule, in a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(protovalidate.ViolationsPb.desc().file.proto.to_binary())
    file = descriptor_pb2.FileDescriptorProto(name="acme.proto", package="acme", syntax="proto3")
    file.dependency.append("buf/validate/validate.proto")
    field = file.message_type.add(name="Item").field.add(name="sku", number=1, type=9, label=1)
    if with_rules:
        field.options.MergeFromString(RULES)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.Item"))


def violations(*classes):
    """Return the number of violations of an empty message of each class, found by one Validator."""
    validator = protovalidate.Validator()
    return [len(validator.collect_violations(cls())) for cls in classes]


ruled, free = message(True), message(False)
print(
    f"protovalidate {version('protovalidate')}: alone {violations(ruled) + violations(free)}, "
    f"with rules first {violations(ruled, free)}, without rules first {violations(free, ruled)}"
)
PYTHON
seen=$("$folder/venv/bin/python" "$folder/show.py")
printf '%s\n' "$seen"
[[ $seen == *"alone [1, 0], with rules first [1, 1], without rules first [0, 0]" ]]
