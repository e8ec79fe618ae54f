"""Runs all protoc plugins that are written in Python in one process, for ``sdk codegen``: protoc sees a single plugin.

On a small proto, most of a plugin's time goes into starting Python and reading the request.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from mypy_protobuf import main as mypy_protobuf  # type: ignore[import-untyped]  # it has no types

from codegen import plugin


def respond(request: CodeGeneratorRequest, all_protos: Collection[str]) -> CodeGeneratorResponse:
    """Return the response of our plugin with the type stubs of mypy-protobuf added.

    Args:
        request: The request; its parameter is for our plugin.
        all_protos: Names of all proto files whose modules are in the output folder.
    """
    response = plugin.respond(request, all_protos)
    # `quiet` keeps it from listing the files that it writes.
    request.parameter = "quiet"
    sent = request.SerializeToString()
    for main in (mypy_protobuf.main, mypy_protobuf.grpc):
        stubs = CodeGeneratorResponse.FromString(_run_plugin(main, sent))
        if stubs.error and not response.error:
            response.error = stubs.error
        response.file.extend(stubs.file)
    return response


def _run_plugin(main: Callable[[], None], request: bytes) -> bytes:
    """Call the entry point of a plugin, which reads the request from stdin and writes the response to stdout."""
    stdin, stdout = sys.stdin, sys.stdout
    response = io.BytesIO()
    try:
        sys.stdin = cast("io.TextIOWrapper", SimpleNamespace(buffer=io.BytesIO(request)))
        sys.stdout = cast("io.TextIOWrapper", SimpleNamespace(buffer=response))
        main()
    finally:
        sys.stdin, sys.stdout = stdin, stdout
    return response.getvalue()


def main() -> None:
    """Run the plugins. protoc starts this; the argument is a file with the names of all protos, one a line."""
    all_protos = Path(sys.argv[1]).read_text("utf-8").splitlines()
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request, all_protos).SerializeToString())
