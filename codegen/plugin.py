"""The protoc plugin ``protoc-gen-sdk``: a CodeGeneratorRequest on stdin, a CodeGeneratorResponse on stdout.

``sdk codegen`` runs it; so can any other build that drives protoc or buf: ``protoc --sdk_out=DIR …``.
"""

from __future__ import annotations

import sys

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from codegen import model
from codegen.errors import CodegenError


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return the answer to one request of protoc.

    What is wrong with the protos or the parameter is put into the answer's ``error``, as protoc wants it.
    """
    response = CodeGeneratorResponse(
        supported_features=(
            CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
        ),
        # Services and RPCs read the same in every edition; these are the ones that were tried.
        minimum_edition=Edition.EDITION_PROTO2,
        maximum_edition=Edition.EDITION_2024,
    )
    try:
        _generate(request, response)
    except CodegenError as error:
        del response.file[:]
        response.error = str(error)
    except Exception as error:  # a traceback would reach the user through protoc
        del response.file[:]
        response.error = (
            f"internal error: {type(error).__name__}: {error}; this is a bug in ray-grpc-sdk, please report it"
        )
    return response


def _generate(request: CodeGeneratorRequest, response: CodeGeneratorResponse) -> None:
    name, separator, value = request.parameter.partition("=")
    if request.parameter and (name != "package" or not separator):
        raise CodegenError(f"unknown parameter {request.parameter!r}; protoc-gen-sdk takes package=NAME")
    try:
        # Imported when needed: jinja2 belongs to the codegen extra, and its absence has a remedy to name.
        from codegen import render
    except ImportError as error:
        raise CodegenError(f"{error.name} is not installed: pip install 'ray-grpc-sdk[codegen]'") from error
    tool = render.tool_version()
    for file in model.files(request, value if separator else None):
        response.file.add(name=file.output, content=render.render(file, tool))


def main() -> None:
    """Run the plugin: what the ``protoc-gen-sdk`` script calls."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


if __name__ == "__main__":
    main()
