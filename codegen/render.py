"""Renders the model of a proto file to the text of its ``_sdk`` module. Pure: same model and version, same text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from codegen import formatting as layout
from codegen import imports
from codegen.errors import CodegenError
from codegen.module_names import Import
from codegen.relocate import HEADER

if TYPE_CHECKING:
    from codegen.model import File, Rpc, Service

DISTRIBUTION = "ray-grpc-sdk"


def tool_version() -> str:
    """Return the version of the installed distribution, as it stands in generated code."""
    return version(DISTRIBUTION)


def render(file: File, tool: str) -> str:
    """Return the text of the ``_sdk`` module of one proto file.

    Args:
        file: The model of the proto file.
        tool: Version of this tool, for the header.

    Raises:
        CodegenError: What came out is not Python: a bug in this tool.
    """
    template = _environment().get_template("sdk.py.jinja")
    text = template.render(file=file, n=file.scope.runtime, header=HEADER, version=tool)
    try:
        compile(text, file.output, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise CodegenError(
            f"{file.proto}: the generated module is not Python, line {error.lineno}: {error.msg}; "
            f"this is a bug in {DISTRIBUTION}, please report it"
        ) from error
    return text


@cache
def _environment() -> jinja2.Environment:
    here = Path(__file__).resolve().parent
    environment = jinja2.Environment(
        # In the wheel the templates lie inside the package, in the source tree beside it.
        loader=jinja2.FileSystemLoader([here / "templates" / "python", here.parent / "templates" / "python"]),
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
        "bracketed": layout.bracketed,
        "client_property": _client_property,
        "client_row": _client_row,
        "deprecated": _deprecated,
        "described": _described,
        "docstring": layout.docstring,
        "imports": _imports,
        "listed": layout.listed,
        "parameters": _parameters,
        "quoted": _quoted,
        "signature": layout.signature,
        "subclass": layout.subclass,
    }
    return environment


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _imports(file: File) -> str:
    """Return the import statements: the standard library, what is installed, the modules generated beside this one."""
    library = [Import("", "importlib", "importlib")] if file.scope.loaded else []
    return imports.block([*library, *file.scope.imports], file.beside)


def _parameters(rpc: Rpc, names: Mapping[str, str]) -> list[str]:
    """Return the parameters of an RPC's method.

    ``*args: Any, **kwargs: Any`` is what type checkers take as compatible with anything, so that an override may have
    a ``grpc_context`` or not.
    """
    request = rpc.request.expression
    first = f"requests: {names['RequestStream']}[{request}]" if rpc.client_streaming else f"request: {request}"
    return ["self", first, "/", f"*args: {names['Any']}", f"**kwargs: {names['Any']}"]


def _answers(rpc: Rpc, names: Mapping[str, str]) -> list[str]:
    response = rpc.response.expression
    if rpc.server_streaming:
        return [f"{names['Iterator']}[{response}]", f"{names['AsyncIterator']}[{response}]"]
    return [response, f"{names['Awaitable']}[{response}]"]


def _described(what: Rpc | Service, otherwise: str) -> str:
    """Return the text of a docstring: the proto's comment, and whether it is deprecated."""
    return (what.comment or otherwise) + ("\n\nDeprecated." if what.deprecated else "")


def _deprecated(file: File, what: str, decorator: str, indent: int) -> str:
    return layout.bracketed(f"@{decorator}(", [_quoted(f"{what} is deprecated in {file.proto}")], ")", indent)


def _client_property(rpc: Rpc, kind: str, indent: int) -> str:
    return layout.getter(rpc.python_name, kind, [rpc.request.expression, rpc.response.expression], indent)


def _client_row(rpc: Rpc, kind: str, constant: str, indent: int) -> str:
    types = [rpc.request.expression, rpc.response.expression]
    return layout.subscripted(f"{rpc.python_name} = {kind}", types, f"{constant}[{_quoted(rpc.name)}]", indent)


def _bound(service: Service, bound_as: str, indent: int) -> str:
    return layout.getter("__grpc_bound__", bound_as, [service.names.bound], indent)


def _bindings(service: Service, binding: str, indent: int) -> str:
    pairs = [
        (f"{service.names.constant}[{_quoted(rpc.name)}]", f"implementation.{rpc.python_name}") for rpc in service.rpcs
    ]
    flat = [f"{binding}({method}, {handler})" for method, handler in pairs]
    if not flat or (len(flat) == 1 and indent + len(f"return ({flat[0]},)") <= layout.WIDTH):
        return layout.bracketed("return (", flat, ")", indent)
    items = [layout.bracketed(f"{binding}(", pair, ")", indent + 4) for pair in pairs]
    if len(items) > 1 and indent + len(f"return ({', '.join(flat)})") <= layout.WIDTH:
        return layout.bracketed("return (", flat, ")", indent)
    return layout.exploded("return (", items, ")", indent)
