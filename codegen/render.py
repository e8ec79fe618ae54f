"""Renders the model of a proto file to the text of its ``_sdk`` module. Pure: same model and version, same text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import jinja2

from codegen import formatting, imports
from codegen.errors import CodegenError
from codegen.module_names import Import
from codegen.relocate import HEADER
from codegen.template_folders import template_folders

if TYPE_CHECKING:
    from codegen.model import FileModel, RpcModel, ServiceModel

DISTRIBUTION = "ray-grpc-sdk"

# It marks the place of a service's comments until the rest is compiled: they are most of a module, and can't be wrong.
# Python takes it for a space, and no comment has it.
_COMMENTS = "\f"
_JSON = json.JSONEncoder(ensure_ascii=False)


def tool_version() -> str:
    """Return the version of the installed distribution, which generated code states."""
    return version(DISTRIBUTION)


def render(file: FileModel, tool: str) -> str:
    """Return the text of the ``_sdk`` module of one proto file.

    Args:
        file: The model of the proto file.
        tool: Version of this tool, for the header.

    Raises:
        CodegenError: The text is not Python: a bug in this tool.
    """
    template = _environment().get_template("sdk.py.jinja")
    text = template.render(file=file, n=file.names.runtime, header=HEADER, version=tool, comments=_COMMENTS)
    try:
        compile(text, file.output, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise CodegenError(
            f"{file.proto}: the generated module is not Python, line {error.lineno}: {error.msg}; "
            f"this is a bug in {DISTRIBUTION}, please report it"
        ) from error
    head, *rest = text.split(_COMMENTS)
    commented = [service for service in file.services if service.comments]
    return head + "".join(_comments(service, 4) + part for service, part in zip(commented, rest, strict=True))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folders("python")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "answers": _answers,
        "bindings": _bindings,
        "bound": _bound,
        "bracketed": formatting.bracketed,
        "client_property": _client_property,
        "client_row": _client_row,
        "deprecated": _deprecated,
        "described": _described,
        "docstring": formatting.docstring,
        "imports": _imports,
        "listed": formatting.listed,
        "parameters": _parameters,
        "quoted": _quoted,
        "signature": formatting.signature,
        "subclass": formatting.subclass,
    }
    return environment


def _quoted(text: str) -> str:
    literal = _JSON.encode(text)
    if text.count('"') <= text.count("'"):
        return literal
    # As ruff: the quotes that need fewer backslashes.
    escaped = re.sub(r"\\.|'", lambda match: {'\\"': '"', "'": "\\'"}.get(match[0], match[0]), literal[1:-1])
    return f"'{escaped}'"


# Many services have the same messages.
@lru_cache(maxsize=65536)
def _comment(name: str, text: str) -> str:
    return f"{_quoted(name)}: {_quoted(text)}"


def _comments(service: ServiceModel, indent: int) -> str:
    """Return the comments of all definitions, for which the template would take much longer."""
    return formatting.exploded("comments={", [_comment(*each) for each in service.comments], "},", indent)


def _imports(file: FileModel) -> tuple[str, str]:
    """Return the import statements: of the standard library, and of installed packages and other generated modules."""
    dynamic = [Import("", "importlib", "importlib")] if file.names.dynamic_imports else []
    library, *others = imports.sections([*dynamic, *file.names.imports], file.first_party)
    return library, "\n\n".join(others)


def _parameters(rpc: RpcModel, names: Mapping[str, str]) -> list[str]:
    """Return the parameters of an RPC's method.

    Type checkers accept ``*args: Any, **kwargs: Any`` as compatible with any parameters, so an override may have a
    ``grpc_context`` or not: https://typing.python.org/en/latest/spec/callables.html
    """
    request = rpc.request.expression
    first = f"requests: {names['RequestStream']}[{request}]" if rpc.client_streaming else f"request: {request}"
    return ["self", first, "/", f"*args: {names['Any']}", f"**kwargs: {names['Any']}"]


def _answers(rpc: RpcModel, names: Mapping[str, str]) -> list[str]:
    response = rpc.response.expression
    if rpc.server_streaming:
        return [f"{names['ResponseStream']}[{response}]"]
    return [response, f"{names['Awaitable']}[{response}]"]


def _described(what: RpcModel | ServiceModel, otherwise: str) -> str:
    """Return the text of a docstring: the proto's comment, and a note if it is deprecated."""
    return (what.comment or otherwise) + ("\n\nDeprecated." if what.deprecated else "")


def _deprecated(file: FileModel, what: str, decorator: str, indent: int) -> str:
    return formatting.bracketed(f"@{decorator}(", [_quoted(f"{what} is deprecated in {file.proto}")], ")", indent)


def _client_property(rpc: RpcModel, kind: str, indent: int) -> str:
    return formatting.getter(rpc.python_name, kind, [rpc.request.expression, rpc.response.expression], indent)


def _client_row(rpc: RpcModel, kind: str, constant: str, indent: int) -> str:
    types = [rpc.request.expression, rpc.response.expression]
    return formatting.subscripted(f"{rpc.python_name} = {kind}", types, f"{constant}[{_quoted(rpc.name)}]", indent)


def _bound(service: ServiceModel, bound_as: str, indent: int) -> str:
    return formatting.getter("__grpc_bound__", bound_as, [service.names.bound], indent)


def _bindings(service: ServiceModel, binding: str, indent: int) -> str:
    pairs = [
        (f"{service.names.constant}[{_quoted(rpc.name)}]", f"implementation.{rpc.python_name}") for rpc in service.rpcs
    ]
    flat = [f"{binding}({method}, {handler})" for method, handler in pairs]
    if not flat or (len(flat) == 1 and indent + len(f"return ({flat[0]},)") <= formatting.WIDTH):
        return formatting.bracketed("return (", flat, ")", indent)
    items = [formatting.bracketed(f"{binding}(", pair, ")", indent + 4) for pair in pairs]
    if len(items) > 1 and indent + len(f"return ({', '.join(flat)})") <= formatting.WIDTH:
        return formatting.bracketed("return (", flat, ")", indent)
    return formatting.exploded("return (", items, ")", indent)
