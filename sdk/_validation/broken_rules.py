"""Rules that do not work, found before a call needs them, with their place in the proto.

protovalidate compiles the rules of a message when it checks the first one, and names no file. So each message type is
checked alone here: empty, and with a value in every field. If that fails, each of its rules is tried alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from sdk._gen.rule_options_pb2 import RuleOptions
from sdk._proto_files.order import imports_first
from sdk._validation.annotated import elements, reachable, rules_of
from sdk._validation.validator import first_line, new_collector, rule_errors

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

#: The proto that defines the rules.
VALIDATE_PROTO = "buf/validate/validate.proto"

# CEL finds these when it evaluates, whatever the data; a division by zero, for example, depends on the data.
_CERTAIN = (
    *("No matching overloads", "No value with name", "no_such_field", "outputs an unexpected type"),
    *("Applying SELECT to non-message", "Invalid container type"),
)
_PREFIXES = ("failed to compile expression ", "failed to compile program ", "error evaluating ", "expression ")
# Field numbers of descriptor.proto, which make up the paths of source_code_info, and the number of the extension.
_MESSAGE, _FIELD, _NESTED, _ONEOF = 4, 2, 3, 8
_RULES = 1159


class BrokenRule(NamedTuple):
    """A rule that does not work.

    Attributes:
        proto: Name of its proto file.
        line: Its line, from 1; 0 if it is not known.
        element: The message, field or oneof, ``"shop.Order.id"``.
        rule: The rule, ``"string.pattern"``, or the id of a CEL expression.
        reason: What is wrong with it.
    """

    proto: str
    line: int
    element: str
    rule: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.proto}:{self.line}" if self.line else self.proto
        return f"{where}: the rule `{self.rule}` of {self.element} does not work: {self.reason}"


class _Rule(NamedTuple):
    """One rule of an element: its name, its path in the options, and the rules without all others."""

    name: str
    path: tuple[int, ...]
    alone: bytes


def broken_rules(messages: Iterable[Descriptor]) -> list[BrokenRule]:
    """Return the rules that do not work of messages and all messages in their fields; without lines.

    Args:
        messages: The messages.

    Raises:
        MissingExtraError: The package that evaluates rules is not installed.
    """
    found = {name: each for message in messages for name, each in reachable(message).items()}
    return [broken for each in found.values() for broken in _broken_in_process(each)]


def broken_rules_of_files(
    files: FileDescriptorSet, protos: Container[str], names: Container[str] | None = None
) -> list[BrokenRule]:
    """Return the rules that do not work of the messages of some proto files, in the order of the files.

    Args:
        files: The files with all that they import, and with ``source_code_info`` for lines.
        protos: Names of the files to check.
        names: Full names of the messages to check; None for all.

    Raises:
        MissingExtraError: A message has rules, and the package that evaluates them is not installed.
    """
    known = {file.name: file for file in files.file}
    if VALIDATE_PROTO not in known:
        return []
    pool = _pool(imports_first(known, lambda name: known[name].dependency), known)
    chosen = [pool.FindFileByName(name) for name in known if name in protos and name != VALIDATE_PROTO]
    messages = [each for file in chosen for top in file.message_types_by_name.values() for each in _all_nested(top)]
    wanted = [each for each in messages if names is None or each.full_name in names]
    return [broken for message in wanted for broken in _broken(message, known)]


@lru_cache(1024)  # each class with these messages asks
def _broken_in_process(message: Descriptor) -> tuple[BrokenRule, ...]:
    return tuple(_broken(message, {}))


def _broken(message: Descriptor, sources: Mapping[str, FileDescriptorProto]) -> Iterator[BrokenRule]:
    """Yield the rules of one message that do not work."""
    ruled = [element for element in elements(message) if rules_of(element)]
    if not ruled:
        return
    if not _failure(message, if_certain=False):
        return
    path = _path(message)
    places = {tuple(each.path): each.span[0] + 1 for each in _source(message, sources)}
    found = False
    for element in ruled:
        options = _options_path(message, element, path)
        for rule in _rules(message, element):
            failure = _failure(_with_only(message, element, rule.alone))
            if failure:
                found = True
                full = (*options, _RULES, *rule.path)
                line = next((places[full[:end]] for end in range(len(full), 0, -1) if full[:end] in places), 0)
                yield BrokenRule(message.file.name, line, _name(element), rule.name, failure)
    if not found and (reason := _failure(message)):  # only together they do not work
        yield BrokenRule(message.file.name, places.get(path, 0), message.full_name, "buf.validate", reason)


def _failure(message: Descriptor, *, if_certain: bool = True) -> str:
    """Return the reason why the rules of a message do not work; ``""`` if they do.

    Args:
        message: The message.
        if_certain: Leave out what depends on the data. Such a failure hides those of the rules after it.
    """
    collect = new_collector()  # it keeps what it knows by the name of the message, and variants have one name
    compilation, evaluation = rule_errors()
    cls = message_factory.GetMessageClass(message)
    for value in (cls(), *_filled(cls)):
        try:
            collect(value)
        except compilation as error:
            return _shortened(first_line(error))
        except evaluation as error:
            text = first_line(error)
            if not if_certain or any(each in text for each in _CERTAIN):
                return _shortened(text)
    return ""


def _filled(cls: type[Message]) -> Iterator[Message]:
    """Yield messages with a value in every field: one, and one more for each other member of a oneof."""
    rounds = max((len(oneof.fields) for oneof in cls.DESCRIPTOR.oneofs), default=1)
    for number in range(rounds):
        value = cls()
        for field in cls.DESCRIPTOR.fields:
            oneof = field.containing_oneof
            if oneof is not None and oneof.fields[number % len(oneof.fields)] is not field:
                continue
            _fill(value, field)
        yield value


def _fill(value: Any, field: Any) -> None:
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        key, item = nested.fields_by_name["key"], nested.fields_by_name["value"]
        entries = getattr(value, field.name)
        if item.message_type is not None:
            entries[key.default_value].SetInParent()
        else:
            entries[key.default_value] = item.default_value
    elif field.is_repeated:
        values = getattr(value, field.name)
        if nested is not None:
            values.add()
        else:
            values.append(_default(field))
    elif nested is not None:
        getattr(value, field.name).SetInParent()
    else:
        setattr(value, field.name, _default(field))


def _default(field: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[0].number
    if field.cpp_type == field.CPPTYPE_STRING:
        return b"" if field.type == field.TYPE_BYTES else ""
    return False if field.cpp_type == field.CPPTYPE_BOOL else 0


def _rules(message: Descriptor, element: Any) -> Iterator[_Rule]:
    """Yield the rules of an element, each alone."""
    name = type(element).__name__
    kind = {"FieldDescriptor": "FieldRules", "OneofDescriptor": "OneofRules"}.get(name, "MessageRules")
    pool = message.file.pool
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"buf.validate.{kind}"))
    rules: Any = cls.FromString(rules_of(element))
    for label, path, alone in _leaves(rules):
        yield _Rule(label, path, alone.SerializeToString())


def _leaves(rules: Any) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Yield each rule that is set: its name, its path, and a message in which nothing else is set."""
    for field, value in rules.ListFields():
        if field.is_repeated and field.message_type is not None:  # CEL expressions, oneofs
            for index, each in enumerate(value):
                alone = type(rules)()
                getattr(alone, field.name).add().CopyFrom(each)
                label = getattr(each, "id", "") or getattr(each, "expression", "") or field.name
                yield label, (field.number, index), alone
        elif field.message_type is not None and field.message_type.full_name.endswith("Rules"):
            inner = list(_leaves(value)) or [("", (), type(value)())]
            for label, path, each in inner:
                alone = type(rules)()
                getattr(alone, field.name).CopyFrom(each)
                getattr(alone, field.name).SetInParent()
                yield f"{field.name}.{label}".rstrip("."), (field.number, *path), alone
        else:
            alone = type(rules)()
            if field.is_extension:
                alone.Extensions[field].MergeFrom(value) if field.is_repeated else _set_extension(alone, field, value)
                yield field.full_name, (field.number,), alone
                continue
            if field.is_repeated:
                getattr(alone, field.name).extend(value)
            elif field.message_type is not None:
                getattr(alone, field.name).CopyFrom(value)
            else:
                setattr(alone, field.name, value)
            yield field.name, (field.number,), alone


def _set_extension(message: Any, field: Any, value: Any) -> None:
    if field.message_type is not None:
        message.Extensions[field].CopyFrom(value)
    else:
        message.Extensions[field] = value


def _with_only(message: Descriptor, element: Any, rules: bytes) -> Descriptor:
    """Return a message of another pool that has only these rules, as those of one element, and no others."""
    files = {}
    for file in imports_first([message.file], lambda each: each.dependencies):
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        if file.name != VALIDATE_PROTO:
            for nested in proto.message_type:
                _strip(nested)
        files[file.name] = proto
    place = _at(files[message.file.name], _path(message))
    target: Any = place
    if element is not message:
        names = place.oneof_decl if hasattr(element, "fields") else place.field
        target = next(each for each in names if each.name == element.name)
    target.options.MergeFromString(RuleOptions(rules=[rules]).SerializeToString())
    only: Descriptor = _pool(files, files).FindMessageTypeByName(message.full_name)
    return only


def _strip(message: DescriptorProto) -> None:
    """Remove the rules of a message and of all messages in it."""
    for each in (message, *message.field, *message.oneof_decl):
        owner: Any = each
        if owner.HasField("options"):
            options = RuleOptions.FromString(owner.options.SerializeToString())
            if options.rules:
                del options.rules[:]
                owner.options.ParseFromString(options.SerializeToString())
    for nested in message.nested_type:
        _strip(nested)


def _pool(names: Iterable[str], files: Mapping[str, FileDescriptorProto]) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for name in names:
        pool.AddSerializedFile(files[name].SerializeToString())
    return pool


def _all_nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for nested in message.nested_types:
        yield from _all_nested(nested)


def _path(message: Descriptor) -> tuple[int, ...]:
    """Return the path of a message in source_code_info."""
    outer = message.containing_type
    if outer is None:
        return _MESSAGE, list(message.file.message_types_by_name).index(message.name)
    return *_path(outer), _NESTED, [each.name for each in outer.nested_types].index(message.name)


def _options_path(message: Descriptor, element: Any, path: tuple[int, ...]) -> tuple[int, ...]:
    """Return the path of an element's options in source_code_info."""
    if element is message:
        return *path, 7
    if hasattr(element, "fields"):
        return *path, _ONEOF, list(message.oneofs).index(element), 2
    return *path, _FIELD, list(message.fields).index(element), 8


def _at(file: FileDescriptorProto, path: tuple[int, ...]) -> Any:
    place: Any = file.message_type[path[1]]
    for index in path[3::2]:
        place = place.nested_type[index]
    return place


def _source(message: Descriptor, sources: Mapping[str, FileDescriptorProto]) -> Iterable[Any]:
    file = sources.get(message.file.name)
    return file.source_code_info.location if file is not None else ()


def _name(element: Any) -> str:
    # The descriptor of a oneof has its full name, too.
    return str(element.full_name)


def _shortened(text: str) -> str:
    for prefix in _PREFIXES:
        _, found, rest = text.partition(prefix)
        if found:
            # The name of the rule follows, which the message has already.
            _, _, reason = rest.partition(": ")
            return reason or text
    return text
