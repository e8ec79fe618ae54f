"""Comparison of two versions of messages, and of the enums in them, for peers that use the old one.

On the wire a field is its number and its encoded value, without a name. So fields are compared by number; names are
used to detect a field that was moved to another number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sdk._protos.breaking import reserved
from sdk._protos.breaking.enums import JsonSeverity, check_enum
from sdk._protos.breaking.json_form import json_form, json_format_changes
from sdk._protos.breaking.rules import check_rules
from sdk._protos.wire_format import (
    Comparison,
    Compatibility,
    compare_labels,
    compare_types,
    format_type,
    is_repeated,
    is_required,
    map_entry,
)
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from sdk._protos.descriptors import Descriptors

#: Remedy for a renamed type that is the same on the wire.
KEEP_NAME = "keep the name: clients that regenerate their code must be changed"

Flow = Literal["requests", "responses"]
_WHERE: dict[Flow, str] = {"requests": "in what clients send", "responses": "in what clients receive"}


@dataclass(slots=True)
class _Versions:
    """The two versions of one message or enum, the directions in which it is sent, and whether it has an HTTP route."""

    old: Any
    new: Any
    flows: set[Flow] = field(default_factory=set)
    has_json: bool = False


class MessageComparison:
    """Compares messages, and all messages and enums in their fields.

    Args:
        new: The files of the new version, for locations.
        json: Also report changes that affect only clients that use JSON.
    """

    def __init__(self, new: Descriptors, json: bool) -> None:
        self._new, self._json = new, json
        self._pairs: dict[tuple[str, str], _Versions] = {}
        self._enums: dict[tuple[str, str], _Versions] = {}
        # Why one type is not a compatible replacement of another, or "". While a pair is compared, it counts as
        # compatible, which ends the recursion of recursive types.
        self._replacements: dict[tuple[str, str, Flow], str] = {}

    def add(
        self, old: Descriptor, new: Descriptor, flow: Flow, retyped: Callable[[str], None], *, has_json: bool
    ) -> None:
        """Add a message that an RPC sends in a direction.

        Args:
            old: The old version.
            new: The new version.
            flow: The direction.
            retyped: Called if the two have different names, with the reason why they are not compatible on the wire, or
                ``""``.
            has_json: The RPC has an HTTP route, so that it has clients that use JSON.
        """
        if old.full_name == new.full_name:
            self._reach(old, new, flow, has_json)
        else:
            retyped(self._incompatibility(old, new, flow))

    def changes(self) -> list[Change]:
        """Return the changes of all messages and enums that were added or reached."""
        found: list[Change] = []
        for pair in self._pairs.values():
            found += _MessageCheck(self, self._new, pair, self._json).run()
            if "requests" in pair.flows:
                found += check_rules(pair.old, pair.new, self._new)
        for pair in self._enums.values():
            json: JsonSeverity = "error" if pair.has_json else "warning" if self._json else None
            found += check_enum(pair.old, pair.new, pair.flows, self._new, json)
        return found

    def compare_fields(self, writer: FieldDescriptor, reader: FieldDescriptor, flow: Flow) -> Comparison:
        """Compare the version of a field that is written with the version that reads it.

        Args:
            writer: The field that is written.
            reader: The field that reads.
            flow: The direction: old clients write requests, and read responses.
        """
        label = compare_labels(writer, reader)
        kind = compare_types(writer.type, reader.type)
        if kind.compatibility is Compatibility.SAME and _type(writer) is not None and _type(reader) is not None:
            old, new = (writer, reader) if flow == "requests" else (reader, writer)
            if why := self._type_incompatibility(_type(old), _type(new), flow):
                kind = Comparison(Compatibility.BROKEN, why)
        return max(kind, label, key=lambda comparison: comparison.compatibility)

    def _type_incompatibility(self, old: Any, new: Any, flow: Flow) -> str:
        if old.full_name == new.full_name or (_is_entry(old) and _is_entry(new)):
            return ""  # compared separately
        return self._incompatibility(old, new, flow)

    def _incompatibility(self, old: Any, new: Any, flow: Flow) -> str:
        """Return the reason why a type is not compatible with one of a different name, or ``""``."""
        key = (old.full_name, new.full_name, flow)
        if key not in self._replacements:
            self._replacements[key] = ""
            apart = MessageComparison(self._new, json=False)
            apart._replacements = self._replacements
            apart._reach(old, new, flow, has_json=False)
            errors = [change for change in apart.changes() if change.severity == "error"]
            self._replacements[key] = f"{errors[0].path}: {errors[0].message}" if errors else ""
        return self._replacements[key]

    def _reach(self, old: Any, new: Any, flow: Flow, has_json: bool) -> None:
        is_message = hasattr(old, "fields")
        pairs = self._pairs if is_message else self._enums
        pair = pairs.setdefault((old.full_name, new.full_name), _Versions(old, new))
        if flow in pair.flows and (pair.has_json or not has_json):
            return
        pair.flows.add(flow)
        pair.has_json |= has_json
        for number, before in _fields(old).items() if is_message else ():
            now = _fields(new).get(number)
            one, other = _type(before), _type(now) if now is not None else None
            if one is None or other is None or hasattr(one, "fields") != hasattr(other, "fields"):
                continue
            if one.full_name == other.full_name or (_is_entry(one) and _is_entry(other)):
                self._reach(one, other, flow, has_json)


class _MessageCheck:
    """Compares the two versions of one message."""

    def __init__(self, messages: MessageComparison, new: Descriptors, pair: _Versions, json: bool) -> None:
        self._messages, self._descriptors, self._strict = messages, new, json
        self._json: JsonSeverity = "error" if pair.has_json else "warning" if json else None
        self._old: Descriptor = pair.old
        self._new: Descriptor = pair.new
        # Old clients write requests and read responses.
        self._flows: list[Flow] = sorted(pair.flows)
        self._changes: list[Change] = []

    def run(self) -> list[Change]:
        """Return the changes."""
        before, now = _fields(self._old), _fields(self._new)
        names = {each.name: each for each in self._new.fields}
        # A number that another field took over is one change, reported for the field that moved.
        for number, old in before.items():
            moved = names.get(old.name)
            if moved is not None and moved.number != number:
                self._moved(old, moved)
            elif number not in now:
                self._removed(old)
            else:
                self._check_field(old, now[number])
        kept = reserved.of_message(self._old)
        for number, new in now.items():
            if number not in before and is_required(new) and "requests" in self._flows:
                message = "the field is new and required: the server can't read a request without it"
                self._note("field-required", "error", new, message, "make it optional", "", new)
            if number not in before and number in kept:
                message = "the number was reserved for a removed field: peers that still use that field are misread"
                self._note("field-number-reserved", "warning", new, message, "take another number", "", new)
            elif number not in before and is_required(new) and self._strict:
                message = "the field is new and required: new clients can't read a response of an old server"
                self._note("field-required", "warning", new, message, "make it optional", "", new)
        freed = kept.without(reserved.of_message(self._new), now)
        if freed:
            where = self._descriptors.location(self._new)
            self._changes.append(
                reserved.reservation_removed(self._old.full_name, f"message `{self._new.name}`", "field", freed, where)
            )
        self._check_oneofs(before, now)
        if self._json:
            self._check_json()
        return self._changes

    def _check_json(self) -> None:
        """Report changes of the message as a whole that clients notice if they use JSON."""
        kept = {*reserved.names_of_message(self._new), *self._new.fields_by_name}
        names = [name for name in reserved.names_of_message(self._old) if name not in kept]
        where = self._descriptors.location(self._new)
        if names:
            owner = f"message `{self._new.name}`"
            self._changes.append(reserved.names_removed(self._old.full_name, owner, "field", names, where))
        self._changes += json_format_changes(self._old, self._new, where)

    def _check_field(self, old: FieldDescriptor, new: FieldDescriptor) -> None:
        comparisons: dict[Flow, Comparison] = {}
        for flow in self._flows:
            writer, reader = (old, new) if flow == "requests" else (new, old)
            comparisons[flow] = self._messages.compare_fields(writer, reader, flow)
        worst = max(comparison.compatibility for comparison in comparisons.values())
        if worst is not Compatibility.SAME:
            is_same_type = (old.type, _type_name(old)) == (new.type, _type_name(new))
            rule = "field-repeated" if is_same_type else "field-type"
            message = f"`{format_type(old)}` became `{format_type(new)}`: {_reasons(comparisons, worst)}"
            what = f"give the new field another number and reserve {old.number}"
            remedy = f"keep `{format_type(old)}`, or {'add another map' if _is_entry(self._old) else what}"
            self._note(rule, "error" if worst is Compatibility.BROKEN else "warning", old, message, remedy, old, new)
        elif _type_name(old) != _type_name(new) and _type(old) is not None and _type(new) is not None:
            message = f"`{format_type(old)}` became `{format_type(new)}`, and the two are the same on the wire"
            self._note("field-type", "warning", old, message, KEEP_NAME, old, new)
        self._check_required(old, new)
        if old.type == new.type and is_repeated(old) == is_repeated(new) and _default(old) != _default(new):
            message = f"the default `{_default(old)}` became `{_default(new)}`: an unset field has another value"
            self._note("field-default", "warning", old, message, "keep the default", str(_default(old)), new)
        if self._json:
            self._check_json_field(old, new, self._json, is_same=worst is Compatibility.SAME)

    def _check_json_field(
        self, old: FieldDescriptor, new: FieldDescriptor, severity: Literal["error", "warning"], *, is_same: bool
    ) -> None:
        remedy = f"keep the name `{old.name}`"
        if old.json_name != new.json_name:
            message = f"its JSON name `{old.json_name}` became `{new.json_name}`"
            self._note("field-json-name", severity, old, message, remedy, old.json_name, new)
        elif old.name != new.name and map_entry(old) is None and not _is_entry(self._old):
            message = f"its name `{old.name}`, which JSON may have in place of `{old.json_name}`, became `{new.name}`"
            self._note("field-json-name", severity, old, message, remedy, old.name, new)
        was, now = json_form(old), json_form(new)
        if is_same and was != now:
            message = f"`{format_type(old)}` became `{format_type(new)}`: it was {was} in JSON and is {now}"
            self._note("field-json-type", severity, old, message, f"keep `{format_type(old)}`", old, new)

    def _check_required(self, old: FieldDescriptor, new: FieldDescriptor) -> None:
        if is_required(new) and not is_required(old) and "requests" in self._flows:
            message = "the field became required: the server can't read a request without it"
            self._note("field-required", "error", new, message, "keep it optional", old, new)
        elif is_required(new) and not is_required(old) and self._strict:
            message = "the field became required: new clients can't read a response of an old server without it"
            self._note("field-required", "warning", new, message, "keep it optional", old, new)
        if is_required(old) and not is_required(new) and "responses" in self._flows:
            message = "the field is no longer required: clients can't read a response without it"
            self._note("field-required", "error", new, message, "keep it required", old, new)
        elif is_required(old) and not is_required(new) and self._strict:
            message = "the field is no longer required: an old server can't read a new client's request without it"
            self._note("field-required", "warning", new, message, "keep it required", old, new)

    def _removed(self, old: FieldDescriptor) -> None:
        if is_required(old) and "responses" in self._flows:
            message = "the required field is gone: clients can't read a response without it"
            self._note("field-required", "error", old, message, "keep the field", old, "")
        elif old.number in reserved.of_message(self._new):
            effects = {"requests": "data that clients send in it is lost", "responses": "clients see it as unset"}
            message = f"the field is gone: {', and '.join(effects[flow] for flow in self._flows)}"
            self._note("field-removed", "warning", old, message, "keep it while clients use it", old, "")
        else:
            message = "the field is gone and its number is not reserved: another field may reuse it and be misread"
            remedy = f"write `reserved {old.number};` in message `{self._new.name}`, or keep the field"
            self._note("field-removed", "error", old, message, remedy, old, "")

    def _moved(self, old: FieldDescriptor, new: FieldDescriptor) -> None:
        message = f"the field has number {new.number} now: {old.number}, which clients use, is not read as this field"
        self._note("field-number", "error", old, message, f"give `{old.name}` its number {old.number} again", old, new)

    def _check_oneofs(self, before: Mapping[int, FieldDescriptor], now: Mapping[int, FieldDescriptor]) -> None:
        """Report fields that a writer can set together, but of which a reader keeps only the last one."""
        shared = before.keys() & now.keys()
        for flow in self._flows:
            writers, readers = (before, now) if flow == "requests" else (now, before)
            groups: dict[str, list[int]] = {}
            for number in sorted(shared):
                if (oneof := _oneof(readers[number])) is not None:
                    groups.setdefault(oneof, []).append(number)
            for oneof, numbers in groups.items():
                together = {_oneof(writers[number]) for number in numbers}
                if len(numbers) < 2 or (len(together) == 1 and None not in together):
                    continue
                listed = ", ".join(f"`{now[number].name}`" for number in numbers)
                message = f"{listed} {'became' if flow == 'requests' else 'are no longer'} members of one oneof: "
                message += f"if several are set, only the last one is read, {_WHERE[flow]}"
                remedy = "add new fields to a oneof, not old ones" if flow == "requests" else "keep them in the oneof"
                first = now[numbers[0]]
                path = f"{self._old.full_name}.{oneof}"
                self._note("field-oneof", "error", first, message, remedy, first, first, path=path)

        if self._strict and all(change.rule != "field-oneof" for change in self._changes):
            for number in sorted(shared):
                was, is_now = (_written_oneof(each[number]) for each in (before, now))
                if was != is_now:
                    places = [f"the oneof `{name}`" if name else "no oneof" for name in (was, is_now)]
                    message = f"it was in {places[0]} and is in {places[1]}: the same on the wire, but not in code"
                    self._note("field-oneof", "warning", before[number], message, "leave it where it was",
                               before[number], now[number])  # fmt: skip

    def _note(
        self,
        rule: str,
        severity: Literal["error", "warning"],
        about: FieldDescriptor,
        message: str,
        remedy: str,
        old: FieldDescriptor | str,
        new: FieldDescriptor | str,
        *,
        path: str = "",
    ) -> None:
        location = self._descriptors.location(self._new if isinstance(new, str) else _map_of(new) or new)
        was, now = (each if isinstance(each, str) else format_type(each) for each in (old, new))
        self._changes.append(Change(rule, severity, path or _path(about), message, remedy, was, now, location))


def _reasons(comparisons: Mapping[Flow, Comparison], worst: Compatibility) -> str:
    """Return the reason, and the direction if only one is affected."""
    whys = {flow: comparison.reason for flow, comparison in comparisons.items() if comparison.compatibility is worst}
    (flow, why), *others = whys.items()
    return why if others or len(comparisons) == 1 else f"{why}, {_WHERE[flow]}"


def _path(about: FieldDescriptor) -> str:
    if (outer := _map_of(about)) is not None:
        return f"{_path(outer)} {about.name}"
    message: Any = about.containing_type
    return f"{message.full_name}.{about.name} ({about.number})"


def _map_of(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the map field that a key or value belongs to, or None; the entry message between them is synthetic."""
    entry: Any = field.containing_type
    if not _is_entry(entry):
        return None
    fields: list[FieldDescriptor] = entry.containing_type.fields
    return next(each for each in fields if _type_of(each) == entry.full_name)


def _fields(message: Descriptor) -> dict[int, FieldDescriptor]:
    return {each.number: each for each in message.fields}


def _type(field: FieldDescriptor) -> Any:
    """Return the message or enum type of a field; None for a scalar."""
    return field.message_type if field.message_type is not None else field.enum_type


def _type_of(field: FieldDescriptor) -> str:
    type_ = _type(field)
    return "" if type_ is None else str(type_.full_name)


def _type_name(field: FieldDescriptor) -> str:
    """Return the full name of a field's message or enum; ``""`` for a scalar and for a map."""
    return "" if map_entry(field) is not None else _type_of(field)


def _is_entry(type_: Any) -> bool:
    return bool(hasattr(type_, "fields") and type_.GetOptions().map_entry)


def _oneof(field: FieldDescriptor) -> str | None:
    return field.containing_oneof.name if field.containing_oneof is not None else None


def _written_oneof(field: FieldDescriptor) -> str | None:
    """Return the oneof of a field that is in the proto, and not the one that protoc makes for ``optional``."""
    oneof = field.containing_oneof
    is_made = oneof is not None and len(oneof.fields) == 1 and oneof.name.endswith(f"_{field.name}")
    return None if oneof is None or is_made else str(oneof.name)


def _default(field: FieldDescriptor) -> Any:
    return None if is_repeated(field) or field.message_type is not None else field.default_value
