"""Services, methods and types as JSON values, from which the console makes its forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from sdk._protos.wire_format import is_repeated, is_required, map_entry

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, MethodDescriptor

    from sdk._protos.descriptors import Descriptors

#: Name of each scalar kind in proto source.
_SCALARS = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and name not in ("TYPE_MESSAGE", "TYPE_GROUP", "TYPE_ENUM")
}


def build_catalog(files: Descriptors, services: Iterable[str]) -> dict[str, Any]:
    """Return services and all types that their messages need, as a JSON value.

    Args:
        files: Their files.
        services: Their full names, in the order of the result.

    Returns:
        ``services``: a list with the methods of each; ``types``: messages and enums, in no order. A field has its name,
        its name in JSON, its number, and its ``kind``: a scalar of proto, ``"message"`` or ``"enum"`` with a ``type``,
        or ``"map"`` with a ``key`` and a ``value``.
    """
    catalog = _Catalog(files)
    described = [catalog.service(name) for name in services]
    return {"services": described, "types": list(catalog.types.values())}


class _Catalog:
    def __init__(self, files: Descriptors) -> None:
        self._files = files
        self.types: dict[str, dict[str, Any]] = {}

    def service(self, name: str) -> dict[str, Any]:
        service = self._files.services[name]
        return {
            "name": name,
            "comment": self._comment(name),
            "file": service.file.name,
            "deprecated": bool(service.GetOptions().deprecated),
            "methods": [self._method(method, name) for method in service.methods],
        }

    def _method(self, method: MethodDescriptor, service: str) -> dict[str, Any]:
        return {
            "name": method.name,
            "path": f"{service}/{method.name}",
            "comment": self._comment(method.full_name),
            "deprecated": bool(method.GetOptions().deprecated),
            "clientStreaming": method.client_streaming,
            "serverStreaming": method.server_streaming,
            "request": self._message(method.input_type),
            "response": self._message(method.output_type),
        }

    def _message(self, message: Descriptor) -> str:
        name = message.full_name
        if name not in self.types:
            made: dict[str, Any] = {"name": name, "file": message.file.name, "comment": self._comment(name)}
            self.types[name] = made  # before its fields, which may be of the same type
            made["fields"] = [self._field(field) for field in message.fields]
        return str(name)

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        made: dict[str, Any] = {
            "name": field.name,
            "json": field.json_name,
            "number": field.number,
            "comment": self._comment(field.full_name),
        }
        entry = map_entry(field)
        if entry is not None:
            key, value = (entry.fields_by_name[name] for name in ("key", "value"))
            return {**made, "kind": "map", "key": self._kind(key), "value": self._kind(value)}
        made |= self._kind(field)
        oneof = field.containing_oneof
        # An optional field of proto3 is in a separate oneof: https://protobuf.dev/reference/protobuf/google.protobuf/
        choice = oneof.name if oneof is not None and oneof.name != f"_{field.name}" else ""
        flags = {
            "repeated": is_repeated(field),
            "required": is_required(field),
            "presence": field.has_presence and not choice and made["kind"] != "message",
            "deprecated": bool(field.GetOptions().deprecated),
        }
        made |= {name: True for name, is_set in flags.items() if is_set}
        if choice:
            made["oneof"] = choice
        return made

    def _kind(self, field: FieldDescriptor) -> dict[str, Any]:
        if field.message_type is not None:
            return {"kind": "message", "type": self._message(field.message_type)}
        if field.enum_type is not None:
            return {"kind": "enum", "type": self._enum(field.enum_type)}
        return {"kind": _SCALARS[field.type]}

    def _enum(self, enum: EnumDescriptor) -> str:
        name = enum.full_name
        scope = name.rpartition(".")[0]
        if name not in self.types:
            self.types[name] = {
                "name": name,
                "file": enum.file.name,
                "comment": self._comment(name),
                "values": [
                    {
                        "name": value.name,
                        "number": value.number,
                        "comment": self._comment(f"{scope}.{value.name}" if scope else value.name),
                    }
                    for value in enum.values
                ],
            }
        return str(name)

    def _comment(self, full_name: str) -> str:
        return "\n".join(self._files.comment(full_name)).strip()
