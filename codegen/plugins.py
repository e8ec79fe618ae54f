"""Runs every plugin that is written in Python in one process, for ``sdk codegen``: protoc sees a single plugin.

Starting Python and reading the request is most of what a plugin costs on a small proto.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from mypy_protobuf import main as mypy_protobuf  # type: ignore[import-untyped]  # it has no types

from codegen import plugin


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return our plugin's answer with the type stubs added. The request's parameter is for our plugin."""
    response = plugin.respond(request)
    # `quiet` keeps it from listing the files that it writes.
    request.parameter = "quiet"
    sent = request.SerializeToString()
    for main in (mypy_protobuf.main, mypy_protobuf.grpc):
        answer = CodeGeneratorResponse.FromString(_answer(main, sent))
        if answer.error and not response.error:
            response.error = answer.error
        response.file.extend(answer.file)
    return response


def _answer(main: Callable[[], None], request: bytes) -> bytes:
    """Call what a plugin's script calls, which reads from stdin and writes to stdout."""
    stdin, stdout = sys.stdin, sys.stdout
    answer = io.BytesIO()
    try:
        sys.stdin = cast("io.TextIOWrapper", SimpleNamespace(buffer=io.BytesIO(request)))
        sys.stdout = cast("io.TextIOWrapper", SimpleNamespace(buffer=answer))
        main()
    finally:
        sys.stdin, sys.stdout = stdin, stdout
    return answer.getvalue()


def main() -> None:
    """Run the plugins: what protoc starts."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())
