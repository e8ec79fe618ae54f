"""The protoc plugins that are written in Python as one plugin, for ``sdk codegen``.

On a small proto, most of a plugin's time goes into starting Python and reading the request.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from codegen import plugin, stubs
from codegen.definition_comments import remove_other_places
from codegen.isolated import isolated


def respond(
    request: CodeGeneratorRequest, all_protos: Collection[str], warn: Callable[[str], None]
) -> CodeGeneratorResponse:
    """Return the response of our plugin with the type stubs of mypy-protobuf added.

    Args:
        request: The request; its parameter is for our plugin. It loses what no plugin here reads.
        all_protos: Names of all proto files whose modules are in the output folder.
        warn: Receives each warning of a plugin.
    """
    remove_other_places(request.proto_file)
    response = plugin.respond(request, all_protos)
    if not response.error:
        response.file.extend(stubs.write(request, warn))
    return response


def main() -> None:
    """Run the plugins; warnings go to stderr. protoc starts this for each of many batches.

    The argument is a file with the names of all protos, one a line.
    """
    gc.disable()  # the process ends with this work: a collection would find little, and takes a tenth of its time
    all_protos = Path(sys.argv[1]).read_text("utf-8").splitlines()
    request = isolated(CodeGeneratorRequest).FromString(sys.stdin.buffer.read())
    response = respond(request, all_protos, lambda warning: print(warning, file=sys.stderr))
    sys.stdout.buffer.write(response.SerializeToString())
