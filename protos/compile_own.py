"""Compile the SDK's own protos (``protos/sdk``) into ``sdk/_gen``.

``python protos/compile_own.py`` writes, ``--check`` only compares and exits with 1 when the committed files differ.
Needs ``grpcio-tools`` and ``mypy-protobuf`` (the extra ``codegen``).
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]  # it has no types
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos" / "sdk"
TARGET = ROOT / "sdk" / "_gen"
# The oldest protobuf that the SDK supports (pyproject.toml). Generated code refuses a runtime older than the protoc
# that wrote it; what these protos need has not changed since, so it is stamped with the floor instead.
OLDEST_RUNTIME = (6, 32, 1)


def compile_protos() -> dict[str, str]:
    """Compile every proto of ours; file name → text."""
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    includes = Path(grpc_tools.__file__).with_name("_proto")
    with tempfile.TemporaryDirectory() as out:
        # The virtual folder makes `sdk/_gen/x.proto` the name in the descriptor pool, where bare names could collide.
        command = ["protoc", f"-Isdk/_gen={SOURCES}", f"-I{includes}", f"--plugin=protoc-gen-mypy={plugin}"]
        outputs = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
        if protoc.main([*command, *outputs, *map(str, sorted(SOURCES.glob("*.proto")))]) != 0:
            raise SystemExit("protoc failed")
        return {path.name: _stamp(path.read_text()) for path in sorted(Path(out, "sdk", "_gen").iterdir())}


def _stamp(text: str) -> str:
    major, minor, patch = OLDEST_RUNTIME
    text = re.sub(r"(# Protobuf Python Version: )\S+", rf"\g<1>{major}.{minor}.{patch}", text)
    version = f"    {major},\n    {minor},\n    {patch},\n    '',"
    return re.sub(r"    \d+,\n    \d+,\n    \d+,\n    '[^']*',", version, text)


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; returns the exit code."""
    compiled = compile_protos()
    committed = {path.name: path.read_text() for path in TARGET.glob("*_pb2.py*")}
    if "--check" not in arguments:
        for name in committed.keys() - compiled.keys():
            (TARGET / name).unlink()
        for name, text in compiled.items():
            (TARGET / name).write_text(text)
        return 0
    stale = sorted(n for n in compiled.keys() | committed.keys() if compiled.get(n) != committed.get(n))
    if stale:
        print(f"stale in sdk/_gen: {', '.join(stale)}; run `python protos/compile_own.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
