"""Runs every plugin that is written in Python in one process, for ``sdk codegen``: protoc sees a single plugin.

Starting Python and reading the request is most of what a plugin costs on a small proto.
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


def respond(request: CodeGeneratorRequest, together: Collection[str]) -> CodeGeneratorResponse:
    """Return our plugin's answer with the type stubs added.

    Args:
        request: The request; its parameter is for our plugin.
        together: The proto files whose modules make up the tree.
    """
    response = plugin.respond(request, together)
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
    """Run the plugins: what protoc starts. The argument is a file with the names of all protos of the tree."""
    together = Path(sys.argv[1]).read_text("utf-8").splitlines()
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request, together).SerializeToString())
