"""The protoc plugin ``protoc-gen-sdk``: a CodeGeneratorRequest on stdin, a CodeGeneratorResponse on stdout.

``sdk codegen`` runs it; so can any other build that uses protoc or buf: ``protoc --sdk_out=DIR …``. It reads only the
request: the same request gives the same bytes. The protocol:
https://protobuf.dev/reference/cpp/api-docs/google.protobuf.compiler.plugin.pb

Parameters are given before the folder, ``--sdk_out=package=myapp.gen:DIR``, or in ``--sdk_opt``, separated by commas:

* ``package=NAME``: the dotted name of the package that the output folder is. Modules then import one another
  relatively, from where ``sdk codegen --package`` puts them; the build has to put the ``_pb2`` modules there too.
  An empty NAME means a folder on ``sys.path``. Without the parameter, modules are where protoc puts them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from codegen import model
from codegen.errors import CodegenError

_PARAMETERS = ("package",)


def respond(request: CodeGeneratorRequest, all_protos: Collection[str] | None = None) -> CodeGeneratorResponse:
    """Return the response to a request of protoc.

    Errors in the protos or the parameter are reported in ``error`` of the response, as protoc requires.

    Args:
        request: The request.
        all_protos: Names of all proto files whose modules are in the output folder, if they are more than the files to
            generate.
    """
    response = CodeGeneratorResponse(
        supported_features=(
            CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
        ),
        # Services and RPCs are the same in every edition; these are the ones that were tested.
        minimum_edition=Edition.EDITION_PROTO2,
        maximum_edition=Edition.EDITION_2024,
    )
    try:
        _generate(request, response, all_protos)
    except CodegenError as error:
        del response.file[:]
        response.error = str(error)
    except Exception as error:  # protoc would show the user a traceback
        del response.file[:]
        response.error = (
            f"internal error: {type(error).__name__}: {error}; this is a bug in ray-grpc-sdk, please report it"
        )
    return response


def _generate(
    request: CodeGeneratorRequest, response: CodeGeneratorResponse, all_protos: Collection[str] | None
) -> None:
    given = parameters(request.parameter)
    try:
        # Imported here: jinja2 belongs to the codegen extra, and if it is missing, the error names the remedy.
        from codegen import render
    except ImportError as error:
        raise CodegenError(f"{error.name} is not installed: pip install 'ray-grpc-sdk[codegen]'") from error
    tool = render.tool_version()
    for file in model.files(request, given.get("package"), all_protos):
        response.file.add(name=file.output, content=render.render(file, tool))


def parameters(text: str) -> dict[str, str]:
    """Return the parameters that protoc passed to this plugin.

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
    """Run the plugin: the entry point of the script ``protoc-gen-sdk``."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


if __name__ == "__main__":
    main()
