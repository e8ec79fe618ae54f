"""OpenAPI 3.1 of services, for their calls as JSON over HTTP.

https://spec.openapis.org/oas/v3.1.0.html. Each method is a POST of its gRPC path, and each of its routes of
``google.api.http`` another operation. Schemas are those of ProtoJSON: https://protobuf.dev/programming-guides/json/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sdk._protos.custom_options import custom_option
from sdk._protos.wire_format import is_repeated

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

    from sdk._protos.descriptors import Descriptors

_VERBS = ("get", "put", "post", "delete", "patch")
_VARIABLE = re.compile(r"\{([\w.]+)(?:=[^{}]*)?\}")
_STRING, _NUMBER = {"type": "string"}, {"type": ["number", "string"]}
_KINDS: dict[int, dict[str, Any]] = {
    1: {**_NUMBER, "format": "double"},
    2: {**_NUMBER, "format": "float"},
    3: {**_STRING, "format": "int64"},
    4: {**_STRING, "format": "uint64"},
    5: {"type": "integer", "format": "int32"},
    6: {**_STRING, "format": "uint64"},
    7: {"type": "integer", "format": "uint32", "minimum": 0},
    8: {"type": "boolean"},
    9: _STRING,
    12: {**_STRING, "contentEncoding": "base64"},
    13: {"type": "integer", "format": "uint32", "minimum": 0},
    15: {"type": "integer", "format": "int32"},
    16: {**_STRING, "format": "int64"},
    17: {"type": "integer", "format": "int32"},
    18: {**_STRING, "format": "int64"},
}
# Messages of google.protobuf with a special form.
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "Any": {"type": "object", "properties": {"@type": _STRING}, "required": ["@type"], "additionalProperties": True},
    "Timestamp": {**_STRING, "format": "date-time"},
    "Duration": {**_STRING, "pattern": r"^-?\d+(\.\d{1,9})?s$"},
    "FieldMask": _STRING,
    "Struct": {"type": "object", "additionalProperties": True},
    "Value": {},
    "ListValue": {"type": "array", "items": {}},
    "BoolValue": {"type": ["boolean", "null"]},
    "BytesValue": {"type": ["string", "null"], "contentEncoding": "base64"},
    "DoubleValue": {"type": ["number", "string", "null"]},
    "FloatValue": {"type": ["number", "string", "null"]},
    "Int32Value": {"type": ["integer", "null"]},
    "Int64Value": {"type": ["string", "null"], "format": "int64"},
    "StringValue": {"type": ["string", "null"]},
    "UInt32Value": {"type": ["integer", "null"], "minimum": 0},
    "UInt64Value": {"type": ["string", "null"], "format": "uint64"},
}
# Bytes of any content-type. https://spec.openapis.org/oas/v3.1.0.html#considerations-for-file-uploads
_BYTES: dict[str, Any] = {"*/*": {"schema": {**_STRING, "format": "binary"}}}
_ERROR = {
    "type": "object",
    "description": "The error of a call. https://connectrpc.com/docs/protocol#error-end-stream",
    "properties": {
        "code": {"type": "string", "examples": ["not_found"]},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "examples": ["google.rpc.BadRequest"]},
                    "value": {"type": "string", "contentEncoding": "base64"},
                    "debug": {"type": "object", "additionalProperties": True},
                },
            },
        },
    },
    "required": ["code"],
}


def build_openapi(files: Descriptors, services: Iterable[str], *, title: str, version: str) -> dict[str, Any]:
    """Return the document of services as a JSON value.

    Args:
        files: Their files.
        services: Their full names.
        title: Title of the document.
        version: Version of the document.
    """
    return _Document(files).build(services, title, version)


class _Document:
    def __init__(self, files: Descriptors) -> None:
        self._files = files
        self._schemas: dict[str, Any] = {}

    def build(self, services: Iterable[str], title: str, version: str) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        tags = []
        for name in services:
            service = self._files.services[name]
            tags.append(_with_description({"name": name}, self._comment(name)))
            for method in service.methods:
                for number, (path, verb, operation) in enumerate(self._operations(method, name)):
                    operation["operationId"] = f"{name}.{method.name}" + (f".{number + 1}" if number else "")
                    paths.setdefault(path, {}).setdefault(verb, operation)
        self._schemas["Error"] = _ERROR
        return {
            "openapi": "3.1.0",
            "info": {"title": title, "version": version},
            "tags": tags,
            "paths": paths,
            "components": {"schemas": dict(sorted(self._schemas.items()))},
        }

    def _operations(self, method: MethodDescriptor, service: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield path, verb and operation of each way to call a method."""
        yield f"/{service}/{method.name}", "post", self._operation(method, service, self._body(method, "*"), [], "")
        rule = custom_option(method, "google.api.http")
        for each in () if rule is None else (rule, *rule.additional_bindings):
            verb = each.WhichOneof("pattern")
            if verb not in _VERBS:  # OpenAPI has no others
                continue
            template = getattr(each, verb)
            names = _VARIABLE.findall(template)
            request = method.input_type
            parameters = [{**self._parameter(request, name, "path"), "name": _in_path(name)} for name in names]
            if each.body != "*":
                taken = {*names, each.body}
                parameters += (
                    self._parameter(request, field.name, "query")
                    for field in request.fields
                    if field.name not in taken and self._is_plain(field)
                )
            body = self._body(method, each.body) if each.body else None
            operation = self._operation(method, service, body, parameters, each.response_body)
            self._make_raw(operation, method, each)
            yield _VARIABLE.sub(lambda found: f"{{{_in_path(found[1])}}}", template), verb, operation

    def _operation(
        self, method: MethodDescriptor, service: str, body: Any, parameters: list[Any], response_field: str
    ) -> dict[str, Any]:
        response = self._message(method.output_type)
        if response_field:
            response = self._field(method.output_type.fields_by_name[response_field])
        kinds = ("application/x-ndjson", "text/event-stream") if method.server_streaming else ("application/json",)
        about = "Each message, as a line or an event." if method.server_streaming else "The response."
        comment = self._comment(method.full_name)
        operation: dict[str, Any] = {"tags": [service]}
        if comment:
            operation["summary"] = comment.partition("\n")[0]
            operation["description"] = comment
        if parameters:
            operation["parameters"] = parameters
        if body is not None:
            operation["requestBody"] = body
        operation["responses"] = {
            "200": {"description": about, "content": {kind: {"schema": response} for kind in kinds}},
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        }
        if method.GetOptions().deprecated:
            operation["deprecated"] = True
        return operation

    def _make_raw(self, operation: dict[str, Any], method: MethodDescriptor, rule: Any) -> None:
        """Give a route the bytes that it takes and returns in place of a ``google.api.HttpBody``."""
        if rule.body and _is_http_body(method.input_type, rule.body.removeprefix("*")):
            operation["requestBody"] = {"required": True, "content": _BYTES}
        if _is_http_body(method.output_type, rule.response_body):
            operation["responses"]["200"] = {"description": "The bytes.", "content": _BYTES}

    def _body(self, method: MethodDescriptor, name: str) -> dict[str, Any]:
        request = method.input_type
        schema = self._message(request) if name == "*" else self._field(request.fields_by_name[name])
        kind = "application/x-ndjson" if method.client_streaming else "application/json"
        return {"required": True, "content": {kind: {"schema": schema}}}

    def _parameter(self, message: Descriptor, path: str, place: str) -> dict[str, Any]:
        field: Any = None
        for name in path.split("."):
            field = message.fields_by_name[name]
            message = field.message_type
        parameter: dict[str, Any] = {"name": path, "in": place, "schema": self._field(field)}
        if place == "path":
            parameter["required"] = True
        return _with_description(parameter, self._comment(f"{field.containing_type.full_name}.{field.name}"))

    def _is_plain(self, field: FieldDescriptor) -> bool:
        message = field.message_type
        return message is None or message.full_name.removeprefix("google.protobuf.") in _WELL_KNOWN

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._one(message.fields_by_name["value"])}
        return {"type": "array", "items": self._one(field)} if is_repeated(field) else self._one(field)

    def _one(self, field: FieldDescriptor) -> dict[str, Any]:
        if field.message_type is not None:
            return self._message(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return _KINDS[field.type]

    def _message(self, message: Descriptor) -> dict[str, Any]:
        name = message.full_name
        if name.startswith("google.protobuf.") and name.removeprefix("google.protobuf.") in _WELL_KNOWN:
            return _WELL_KNOWN[name.removeprefix("google.protobuf.")]
        if name not in self._schemas:
            schema: dict[str, Any] = {"type": "object"}
            self._schemas[name] = schema  # before its fields, which may be of the same type
            _with_description(schema, self._comment(name))
            schema["properties"] = {
                field.json_name: _described(self._field(field), self._comment(f"{name}.{field.name}"))
                for field in message.fields
            }
            schema["additionalProperties"] = False
        return {"$ref": f"#/components/schemas/{name}"}

    def _enum(self, enum: EnumDescriptor) -> dict[str, Any]:
        name = enum.full_name
        if name == "google.protobuf.NullValue":
            return {"type": "null"}
        if name not in self._schemas:
            schema = {"type": "string", "enum": [value.name for value in enum.values]}
            self._schemas[name] = _with_description(schema, self._comment(name))
        return {"$ref": f"#/components/schemas/{name}"}

    def _comment(self, full_name: str) -> str:
        return "\n".join(self._files.comment(full_name)).strip()


def _is_http_body(message: Descriptor, field: str) -> bool:
    """Return True if a message, or the field of it that is named, is a ``google.api.HttpBody``."""
    found: Any = message.fields_by_name[field] if field else None
    kind = message if found is None else found.message_type
    return kind is not None and kind.full_name == "google.api.HttpBody" and (found is None or not is_repeated(found))


def _in_path(field: str) -> str:
    """Return the name of a path's variable. It is not sent, and generators of clients take names without dots only."""
    return field.replace(".", "_")


def _described(schema: dict[str, Any], comment: str) -> dict[str, Any]:
    return _with_description(dict(schema), comment)


def _with_description(value: dict[str, Any], comment: str) -> dict[str, Any]:
    if comment:
        value["description"] = comment
    return value
