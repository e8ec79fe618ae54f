"""Proto source from descriptors: services, methods, messages and enums, with their comments if known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message_factory import GetMessageClass

from sdk._protos.wire_format import is_repeated
from sdk.cli.rpc.type_names import TypeNames

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

Path = tuple[int, ...]

# Field numbers in descriptor.proto, which the paths of SourceCodeInfo consist of:
# https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
_MESSAGES, _ENUMS, _SERVICES, _EXTENSIONS = 4, 5, 6, 7
_FIELDS, _NESTED, _NESTED_ENUMS, _NESTED_EXTENSIONS, _ONEOFS = 2, 3, 4, 6, 8
_METHODS, _VALUES = 2, 2

_F = FieldDescriptorProto
_LABELS = {_F.LABEL_REPEATED: "repeated ", _F.LABEL_REQUIRED: "required "}
_END = 536870912  # one more than the largest number of a field
_ENUM_END = 2147483647


class ProtoText:
    """Proto source of the definitions in one file.

    Args:
        file: The file.
        pool: A pool with the options that other files define; None for only those of protobuf.

    Example:
        >>> file = FileDescriptorProto(name="a.proto", syntax="proto3", enum_type=[{"name": "Colour"}])
        >>> file.enum_type[0].value.add(name="RED", number=0)
        name: "RED"
        number: 0
        <BLANKLINE>
        >>> print(ProtoText(file).symbol("Colour"))
        enum Colour {
          RED = 0;
        }
    """

    def __init__(self, file: FileDescriptorProto, pool: DescriptorPool | None = None) -> None:
        self._file = file
        self._pool = pool
        self._comments = {tuple(each.path): each for each in file.source_code_info.location}
        self._is_proto2 = file.syntax in ("", "proto2")
        self._names = TypeNames(_with_imports(file, pool))

    def symbol(self, full_name: str) -> str:
        """Return the text of a service, a method, a message or an enum of the file.

        Args:
            full_name: Its full name.

        Raises:
            KeyError: The file does not define it.
        """
        for name, lines in self._symbols():
            if name == full_name:
                return "\n".join(lines)
        raise KeyError(full_name)

    def definitions(self) -> Iterator[str]:
        """Yield the lines of all definitions in the file."""
        file = self._file
        for i, service in enumerate(file.service):
            yield from self._service(service, (_SERVICES, i))
        for i, message in enumerate(file.message_type):
            yield from self._message(message, (_MESSAGES, i))
        for i, enum in enumerate(file.enum_type):
            yield from self._enum(enum, (_ENUMS, i))
        yield from self._extensions(file.extension, (_EXTENSIONS,), {})

    def _symbols(self) -> Iterator[tuple[str, Iterator[str]]]:
        scope = f"{self._file.package}." if self._file.package else ""
        for i, service in enumerate(self._file.service):
            yield f"{scope}{service.name}", self._service(service, (_SERVICES, i))
            for j, method in enumerate(service.method):
                yield f"{scope}{service.name}.{method.name}", self._method(method, (_SERVICES, i, _METHODS, j))
        for i, enum in enumerate(self._file.enum_type):
            yield f"{scope}{enum.name}", self._enum(enum, (_ENUMS, i))
        for i, message in enumerate(self._file.message_type):
            yield from self._message_symbols(message, scope, (_MESSAGES, i))

    def _message_symbols(self, message: DescriptorProto, scope: str, path: Path) -> Iterator[tuple[str, Iterator[str]]]:
        inner = f"{scope}{message.name}."
        yield inner[:-1], self._message(message, path)
        for i, enum in enumerate(message.enum_type):
            yield f"{inner}{enum.name}", self._enum(enum, (*path, _NESTED_ENUMS, i))
        for i, nested in enumerate(message.nested_type):
            yield from self._message_symbols(nested, inner, (*path, _NESTED, i))

    # -- services -----------------------------------------------------------------------------

    def _service(self, service: ServiceDescriptorProto, path: Path) -> Iterator[str]:
        body = [*self._option_lines(service)]
        for i, method in enumerate(service.method):
            body += self._method(method, (*path, _METHODS, i))
        yield from self._block(f"service {service.name}", body, path)

    def _method(self, method: MethodDescriptorProto, path: Path) -> Iterator[str]:
        request = f"{'stream ' if method.client_streaming else ''}{self._type_name(method.input_type, path)}"
        response = f"{'stream ' if method.server_streaming else ''}{self._type_name(method.output_type, path)}"
        text = f"rpc {method.name}({request}) returns ({response})"
        options = list(self._option_lines(method))
        if options:
            yield from self._block(text, options, path)
        else:
            yield from self._commented(f"{text};", path)

    # -- messages -----------------------------------------------------------------------------

    def _message(self, message: DescriptorProto, path: Path) -> Iterator[str]:
        yield from self._block(f"{_visibility(message)}message {message.name}", list(self._body(message, path)), path)

    def _body(self, message: DescriptorProto, path: Path) -> Iterator[str]:
        yield from self._option_lines(message)
        nested = {each.name: each for each in message.nested_type}
        shown: set[int] = set()
        for i, field in enumerate(message.field):
            if not field.HasField("oneof_index") or field.proto3_optional:
                yield from self._field(field, (*path, _FIELDS, i), nested, self._label(field))
            elif field.oneof_index not in shown:
                shown.add(field.oneof_index)
                yield from self._oneof(message, field.oneof_index, path, nested)
        groups = {field.type_name.rpartition(".")[2] for field in _all_fields(message) if field.type == _F.TYPE_GROUP}
        for i, each in enumerate(message.nested_type):
            if not each.options.map_entry and each.name not in groups:
                yield from self._message(each, (*path, _NESTED, i))
        for i, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, _NESTED_ENUMS, i))
        for extended in message.extension_range:
            options = self._inline(extended)
            yield f"extensions {_range(extended.start, extended.end - 1, _END - 1)}{options};"
        yield from self._extensions(message.extension, (*path, _NESTED_EXTENSIONS), nested)
        ranges = [_range(each.start, each.end - 1, _END - 1) for each in message.reserved_range]
        yield from self._reserved(ranges, message.reserved_name)

    def _oneof(
        self, message: DescriptorProto, index: int, path: Path, nested: dict[str, DescriptorProto]
    ) -> Iterator[str]:
        oneof = message.oneof_decl[index]
        body = list(self._option_lines(oneof))
        for i, field in enumerate(message.field):
            if field.HasField("oneof_index") and field.oneof_index == index:
                body += self._field(field, (*path, _FIELDS, i), nested, "")
        yield from self._block(f"oneof {oneof.name}", body, (*path, _ONEOFS, index))

    def _field(
        self, field: FieldDescriptorProto, path: Path, nested: dict[str, DescriptorProto], label: str
    ) -> Iterator[str]:
        name = field.name
        entry = nested.get(field.type_name.rpartition(".")[2])
        if field.type == _F.TYPE_GROUP and entry is not None:
            # The fields of a group are written inside it.
            body = list(self._body(entry, (-1,)))
            text = f"{label}group {entry.name} = {field.number}{self._field_options(field)}"
            yield from self._block(text, body, path)
            return
        kind = self._type(field, path)
        if entry is not None and entry.options.map_entry:
            label, kind = "", f"map<{self._type(entry.field[0], path)}, {self._type(entry.field[1], path)}>"
        yield from self._commented(f"{label}{kind} {name} = {field.number}{self._field_options(field)};", path)

    def _label(self, field: FieldDescriptorProto) -> str:
        if field.label in _LABELS:
            return _LABELS[field.label]
        return "optional " if field.proto3_optional or self._is_proto2 else ""

    def _extensions(
        self, fields: Sequence[FieldDescriptorProto], path: Path, nested: dict[str, DescriptorProto]
    ) -> Iterator[str]:
        extended = list(dict.fromkeys(field.extendee for field in fields))
        for name in extended:
            body: list[str] = []
            for i, field in enumerate(fields):
                if field.extendee == name:
                    body += self._field(field, (*path, i), nested, self._label(field))
            yield from self._block(f"extend {self._type_name(name, path)}", body, (-1,))

    # -- types --------------------------------------------------------------------------------

    def _type(self, field: FieldDescriptorProto, path: Path) -> str:
        if field.type_name:
            return self._type_name(field.type_name, path)
        return _F.Type.Name(field.type).removeprefix("TYPE_").lower()

    def _type_name(self, name: str, path: Path) -> str:
        """Return the name of a type, which is absolute, as the definition at a path refers to it."""
        scope = self._scope(path)
        return name if scope is None else self._names.shortest(name.removeprefix("."), scope)

    def _scope(self, path: Path) -> str | None:
        """Return the full name of the message or service around a path; None if it is not known, as in a group."""
        names = [self._file.package] if self._file.package else []
        described: Any = self._file
        steps = {_MESSAGES: "message_type", _SERVICES: "service"}
        for number, index in zip(path[::2], path[1::2], strict=False):
            if number not in steps:
                break
            described = getattr(described, steps[number])[index]
            names.append(described.name)
            steps = {_NESTED: "nested_type"}
        return None if path[:1] == (-1,) else ".".join(names)

    # -- enums --------------------------------------------------------------------------------

    def _enum(self, enum: EnumDescriptorProto, path: Path) -> Iterator[str]:
        body = list(self._option_lines(enum))
        for i, value in enumerate(enum.value):
            body += self._commented(f"{value.name} = {value.number}{self._inline(value)};", (*path, _VALUES, i))
        ranges = [_range(each.start, each.end, _ENUM_END) for each in enum.reserved_range]
        body += self._reserved(ranges, enum.reserved_name)
        yield from self._block(f"{_visibility(enum)}enum {enum.name}", body, path)

    def _reserved(self, ranges: Sequence[str], names: Sequence[str]) -> Iterator[str]:
        if ranges:
            yield f"reserved {', '.join(ranges)};"
        if names:
            # With editions, these are identifiers.
            quote = "" if self._file.syntax == "editions" else '"'
            yield f"reserved {', '.join(f'{quote}{name}{quote}' for name in names)};"

    # -- options ------------------------------------------------------------------------------

    def _option_lines(self, described: Any) -> Iterator[str]:
        for name, value in self._options(described):
            yield f"option {name} = {value};"

    def _inline(self, described: Any, more: Iterable[tuple[str, str]] = ()) -> str:
        options = ", ".join(f"{name} = {value}" for name, value in (*more, *self._options(described)))
        return f" [{options}]" if options else ""

    def _field_options(self, field: FieldDescriptorProto) -> str:
        more = []
        if field.HasField("default_value"):
            more.append(("default", _default(field)))
        if field.json_name and field.json_name != _json_name(field.name) and not field.extendee:
            more.append(("json_name", _quoted(field.json_name)))
        return self._inline(field, more)

    def _options(self, described: Any) -> Iterator[tuple[str, str]]:
        """Yield the name and the value of each option, including those that other files define."""
        options: Message = described.options
        if not options.ByteSize():
            return
        if self._pool is not None:
            try:
                known = self._pool.FindMessageTypeByName(options.DESCRIPTOR.full_name)
            except KeyError:  # so no file defines more options
                pass
            else:
                options = GetMessageClass(known).FromString(options.SerializeToString())
        for field, value in options.ListFields():
            if field.name == "map_entry" and not field.is_extension:
                continue
            name = f"(.{field.full_name})" if field.is_extension else field.name
            for item in value if is_repeated(field) else (value,):
                yield name, _value(field, item)

    # -- lines --------------------------------------------------------------------------------

    def _block(self, head: str, body: Sequence[str], path: Path) -> Iterator[str]:
        if not body:
            yield from self._commented(f"{head} {{}}", path)
            return
        yield from self._commented(f"{head} {{", path)
        yield from (f"  {line}" if line else line for line in body)
        yield "}"

    def _commented(self, line: str, path: Path) -> Iterator[str]:
        """Yield a line with its leading comment on the lines before it, and its trailing comment behind it."""
        place = self._comments.get(path)
        if place is not None:
            yield from (f"//{text}".rstrip() for text in place.leading_comments.splitlines())
            behind = place.trailing_comments.splitlines()
            if len(behind) == 1 and not line.endswith("{"):
                line = f"{line}  //{behind[0]}".rstrip()
        yield line


def _with_imports(file: FileDescriptorProto, pool: DescriptorPool | None) -> Iterator[FileDescriptorProto]:
    yield file
    waiting, seen = list(file.dependency), {file.name}
    while waiting and pool is not None:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            imported = FileDescriptorProto()
            pool.FindFileByName(name).CopyToProto(imported)
            waiting += imported.dependency
            yield imported


def _all_fields(message: DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from message.field
    yield from message.extension


def _visibility(described: DescriptorProto | EnumDescriptorProto) -> str:
    """Return the visibility keyword of a type, which edition 2024 added; older versions of protobuf have none.

    See https://protobuf.dev/programming-guides/symbol_visibility/.
    """
    return ("", "local ", "export ")[getattr(described, "visibility", 0)]


def _range(first: int, last: int, end: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == end else last}"


def _default(field: FieldDescriptorProto) -> str:
    value = field.default_value
    if field.type == _F.TYPE_STRING:
        return _quoted(value)
    return f'"{value}"' if field.type == _F.TYPE_BYTES else value  # bytes are escaped already


def _value(field: FieldDescriptor, value: Any) -> str:
    if field.message_type is not None:
        text = text_format.MessageToString(value, as_one_line=True)
        return f"{{ {text} }}" if text else "{}"
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name) if known is not None else str(value)
    if isinstance(value, bytes):
        return '"' + "".join(chr(byte) if _is_plain(byte) else f"\\{byte:03o}" for byte in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else str(value)


def _is_plain(byte: int) -> bool:
    return 32 <= byte < 127 and byte not in b'"\\'


def _quoted(text: str) -> str:
    for character, escaped in {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}.items():
        text = text.replace(character, escaped)
    return f'"{text}"'


def _json_name(name: str) -> str:
    """Return the JSON name that protoc derives from a field's name."""
    return re.sub("_+(.)?", lambda match: (match[1] or "").upper(), name)
