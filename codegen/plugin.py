"""The protoc plugin ``protoc-gen-sdk``: a CodeGeneratorRequest on stdin, a CodeGeneratorResponse on stdout.

``sdk codegen`` runs it; so can any other build that drives protoc or buf: ``protoc --sdk_out=DIR …``. It reads the
request and nothing else: the same request, the same bytes.

Parameters stand before the folder, ``--sdk_out=package=myapp.gen:DIR``, or in ``--sdk_opt``, separated by commas:

* ``package=NAME``: the dotted name of the package that the output folder is. Modules import one another relatively
  then, from where ``sdk codegen --package`` puts them. Whoever gives it has to do the same with the ``_pb2`` modules.
  An empty NAME is a folder on ``sys.path``. Without the parameter, everything is where protoc itself puts it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from codegen import model
from codegen.errors import CodegenError

_PARAMETERS = ("package",)


def respond(request: CodeGeneratorRequest, together: Collection[str] | None = None) -> CodeGeneratorResponse:
    """Return the answer to one request of protoc.

    What is wrong with the protos or the parameter is put into the answer's ``error``, as protoc wants it.

    Args:
        request: The request.
        together: The proto files whose modules make up the tree, when they are more than the files to generate.
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
        _generate(request, response, together)
    except CodegenError as error:
        del response.file[:]
        response.error = str(error)
    except Exception as error:  # a traceback would reach the user through protoc
        del response.file[:]
        response.error = (
            f"internal error: {type(error).__name__}: {error}; this is a bug in ray-grpc-sdk, please report it"
        )
    return response


def _generate(request: CodeGeneratorRequest, response: CodeGeneratorResponse, together: Collection[str] | None) -> None:
    given = parameters(request.parameter)
    try:
        # Imported when needed: jinja2 belongs to the codegen extra, and its absence has a remedy to name.
        from codegen import render
    except ImportError as error:
        raise CodegenError(f"{error.name} is not installed: pip install 'ray-grpc-sdk[codegen]'") from error
    tool = render.tool_version()
    for file in model.files(request, given.get("package"), together):
        response.file.add(name=file.output, content=render.render(file, tool))


def parameters(text: str) -> dict[str, str]:
    """Return the parameters that protoc was given for this plugin.

    Raises:
        CodegenError: One is unknown, malformed, or given twice.

    Example:
        >>> parameters("package=myapp.gen"), parameters("")
        ({'package': 'myapp.gen'}, {})
    """
    known = f"protoc-gen-sdk takes {', '.join(f'{name}=…' for name in _PARAMETERS)}"
    given: dict[str, str] = {}
    for parameter in text.split(",") if text else ():
        name, equals, value = parameter.partition("=")
        if name not in _PARAMETERS:
            raise CodegenError(f"unknown parameter {parameter!r}; {known}")
        if not equals:
            raise CodegenError(f"parameter {parameter!r} has no value; {known}")
        if name in given:
            raise CodegenError(f"parameter {name!r} is given twice")
        given[name] = value
    return given


def main() -> None:
    """Run the plugin: what the ``protoc-gen-sdk`` script calls."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


if __name__ == "__main__":
    main()
