"""Runs all protoc plugins that are written in Python in one process, for ``sdk codegen``: protoc sees a single plugin.

On a small proto, most of a plugin's time goes into starting Python and reading the request.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from codegen import plugin, stubs
from codegen.definition_comments import remove_other_places


def respond(request: CodeGeneratorRequest, all_protos: Collection[str]) -> CodeGeneratorResponse:
    """Return the response of our plugin with the type stubs of mypy-protobuf added. Warnings go to stderr.

    Args:
        request: The request; its parameter is for our plugin. It loses what no plugin here reads.
        all_protos: Names of all proto files whose modules are in the output folder.
    """
    remove_other_places(request.proto_file)
    response = plugin.respond(request, all_protos)
    if not response.error:
        response.file.extend(stubs.write(request, lambda warning: print(warning, file=sys.stderr)))
    return response


def main() -> None:
    """Run the plugins. protoc starts this; the argument is a file with the names of all protos, one a line."""
    gc.disable()  # the process ends with this work: a collection would find little, and takes a tenth of its time
    all_protos = Path(sys.argv[1]).read_text("utf-8").splitlines()
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request, all_protos).SerializeToString())
