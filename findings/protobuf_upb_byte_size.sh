#!/usr/bin/env bash
# protobuf's C implementation (upb) serializes a message to tell its length: `ByteSize()` needs twice the memory of the
# message, and `SerializeToString()` one copy more than its result.
#
# Version: protobuf 7.36.2. Valid input: a BytesValue of 64 MiB.
# Expected: `ByteSize()` adds up lengths and allocates nothing; `SerializeToString()` allocates its result. So it is in
# protobuf's Python implementation.
# Seen: with upb, `ByteSize()` raises the peak of the resident memory by 128 MiB, as `SerializeToString()` does. With
# the Python implementation the peaks are 0 and 64 MiB.
# To choose by the length of a message, serialize it once, and take the length of the bytes.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'protobuf==7.36.2'
cat > "$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

from google.protobuf.internal import api_implementation
from google.protobuf.wrappers_pb2 import BytesValue

MIB = 64
EXPECTED = {"upb": (2, 2), "python": (0, 1)}  # peak of each, in lengths of the message


def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def growth(action):
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: proc_pid_clear_refs(5)
    before = peak_mib()
    result = action()
    return peak_mib() - before, result


message = BytesValue(value=bytes(MIB << 20))
size, length = growth(message.ByteSize)
text, data = growth(message.SerializeToString)
assert length == len(data)
kind = api_implementation.Type()
print(f"{kind}: ByteSize() {size:.0f} MiB, SerializeToString() {text:.0f} MiB")
if (round(size / MIB), round(text / MIB)) != EXPECTED[kind]:
    sys.exit("that changed")
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python "$folder/venv/bin/python" "$folder/show.py"
