"""Compile our protos: ``protos/sdk`` into ``sdk/_gen``, ``protos/inference`` into ``sdk/inference/_protocol``.

``python protos/compile_own.py`` writes, ``--check`` only compares and exits with 1 when the committed files differ.
Needs ``grpcio-tools`` and ``mypy-protobuf`` (the extra ``codegen``).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]  # it has no types
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos" / "sdk"
TARGET = ROOT / "sdk" / "_gen"
INFERENCE_SOURCES = ROOT / "protos" / "inference"
INFERENCE_TARGET = ROOT / "sdk" / "inference" / "_protocol"
# The oldest protobuf that the SDK supports (pyproject.toml). Generated code refuses a runtime older than the protoc
# that wrote it; the output for these protos has not changed since, so it is stamped with the oldest version.
OLDEST_RUNTIME = (6, 32, 1)


def compile_protos() -> dict[str, str]:
    """Return the text of each compiled file by its name."""
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    includes = Path(grpc_tools.__file__).with_name("_proto")
    with tempfile.TemporaryDirectory() as out:
        # The virtual folder makes `sdk/_gen/x.proto` the name in the descriptor pool, where bare names could collide.
        command = ["protoc", f"-Isdk/_gen={SOURCES}", f"-I{includes}", f"--plugin=protoc-gen-mypy={plugin}"]
        outputs = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
        if protoc.main([*command, *outputs, *map(str, sorted(SOURCES.glob("*.proto")))]) != 0:
            raise SystemExit("protoc failed")
        return {path.name: _stamp(path.read_text()) for path in sorted(Path(out, "sdk", "_gen").iterdir())}


def compile_inference() -> dict[str, str]:
    """Return the text of each file that ``sdk codegen`` generates for the Open Inference Protocol, by its name."""
    package = ".".join(INFERENCE_TARGET.relative_to(ROOT).parts)
    with tempfile.TemporaryDirectory() as out:
        arguments = ["codegen", str(INFERENCE_SOURCES), "--out", out, "--package", package]
        command = [str(Path(sys.executable).with_name("sdk")), *arguments]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
            raise SystemExit("sdk codegen failed")
        files = {path.name: _stamp(path.read_text()) for path in sorted(Path(out).glob("*.py*"))}
    # A process may also import the messages of tritonclient or kserve, which have the same names: the default pool has
    # room for one of them.
    pool = "_descriptor_pool.Default()"
    files["open_inference_pb2.py"] = files["open_inference_pb2.py"].replace(pool, "_descriptor_pool.DescriptorPool()")
    return {name: text for name, text in files.items() if "_pb2_grpc" not in name}


def _stamp(text: str) -> str:
    major, minor, patch = OLDEST_RUNTIME
    text = re.sub(r"(# Protobuf Python Version: )\S+", rf"\g<1>{major}.{minor}.{patch}", text)
    version = f"    {major},\n    {minor},\n    {patch},\n    '',"
    return re.sub(r"    \d+,\n    \d+,\n    \d+,\n    '[^']*',", version, text)


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with ``--check``; return the exit code."""
    compiled = {TARGET / name: text for name, text in compile_protos().items()}
    compiled |= {INFERENCE_TARGET / name: text for name, text in compile_inference().items()}
    paths = [*TARGET.glob("*_pb2.py*"), *INFERENCE_TARGET.glob("*.py*")]
    committed = {path: path.read_text() for path in paths}
    if "--check" not in arguments:
        for path in committed.keys() - compiled.keys():
            path.unlink()
        for path, text in compiled.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return 0
    stale = sorted(path for path in compiled.keys() | committed.keys() if compiled.get(path) != committed.get(path))
    if stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"stale: {names}; run `python protos/compile_own.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
