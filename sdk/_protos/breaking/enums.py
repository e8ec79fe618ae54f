"""Comparison of two versions of an enum, for peers that use the old one. On the wire a value is its number.

See https://protobuf.dev/programming-guides/enum/ for open and closed enums.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias

from sdk._protos.breaking import reserved
from sdk._protos.breaking.json_form import json_format_changes
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

    from sdk._protos.descriptors import Descriptors


#: Severity of changes that only clients notice which use JSON; None if they are not reported.
JsonSeverity: TypeAlias = Literal["error", "warning"] | None


def check_enum(
    old: EnumDescriptor, new: EnumDescriptor, flows: Container[str], files: Descriptors, json: JsonSeverity
) -> list[Change]:
    """Return the changes of an enum.

    Args:
        old: The old version.
        new: The new version.
        flows: Old clients send it in ``"requests"``, and receive it in ``"responses"``.
        files: The files of the new version, for locations.
        json: Severity of changes that only clients notice which use JSON; None to leave them out.
    """
    return [
        *_check_values(old, new, "requests" in flows, files, json),
        *(_check_added(old, new, files) if old.is_closed and "responses" in flows else ()),
        *_check_reserved(old, new, files),
        *_check_openness(old, new, files),
        *(_check_json(old, new, files) if json else ()),
    ]


def _check_values(
    old: EnumDescriptor, new: EnumDescriptor, is_sent_by_clients: bool, files: Descriptors, json: JsonSeverity
) -> Iterable[Change]:
    before, now = _names(old), _names(new)
    numbers = {name: number for number, names in now.items() for name in names}
    kept = reserved.of_enum(new)
    for number, names in before.items():
        first = names[0]
        path = f"{old.full_name}.{first} ({number})"
        text = f"{first} = {number}"
        # The number is still in use if one of its names (aliases) remains.
        if not set(names).isdisjoint(now.get(number, ())):
            for name in names:
                if json and name not in now[number]:
                    message = f"its name `{name}`, which JSON may have, is gone"
                    location = _location(files, new, now[number][0])
                    text = f"{name} = {number}"
                    yield Change("enum-value-name", json, path, message, f"keep `{name}`", text, "", location)
            continue
        if first in numbers:
            message = (
                f"the value has number {numbers[first]} now: {number}, which clients use, is not read as this value"
            )
            remedy = f"give `{first}` its number {number} again"
            location = _location(files, new, first)
            yield Change(
                "enum-value-number", "error", path, message, remedy, text, f"{first} = {numbers[first]}", location
            )
        elif number in now:
            if json:
                renamed = now[number][0]
                message = f"its JSON name `{first}` became `{renamed}`"
                remedy = f"keep `{first}`; `allow_alias` permits two names for one number"
                location = _location(files, new, renamed)
                yield Change("enum-value-name", json, path, message, remedy, text, f"{renamed} = {number}", location)
        elif number not in kept:
            message = "the value is gone and its number is not reserved: another value may reuse it and be misread"
            remedy = f"write `reserved {number};` in enum `{new.name}`, or keep the value"
            yield Change("enum-value-removed", "error", path, message, remedy, text, "", files.location(new))
        elif is_sent_by_clients:
            message = "the value is gone: the server does not know the number that clients send"
            remedy = "keep it while clients use it"
            yield Change("enum-value-removed", "warning", path, message, remedy, text, "", files.location(new))
        elif json and not set(names) <= set(reserved.names_of_enum(new)):
            message = "the value is gone and its name is not reserved: another value may take it, and JSON be misread"
            remedy = f'write `reserved "{first}";` in enum `{new.name}`'
            yield Change("enum-value-removed", "warning", path, message, remedy, text, "", files.location(new))


def _check_added(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    before = _names(old)
    for number, names in _names(new).items():
        if number not in before:
            message = (
                "the value is new and the enum is closed: clients do not know the value and see the field as unset"
            )
            path, text = f"{old.full_name}.{names[0]} ({number})", f"{names[0]} = {number}"
            remedy = "return it only to clients that ask for it"
            location = _location(files, new, names[0])
            yield Change("enum-value-added", "warning", path, message, remedy, "", text, location)


def _check_reserved(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    before, now, kept = _names(old), _names(new), reserved.of_enum(old)
    for number, names in now.items():
        if number in kept and number not in before:
            message = "the number was reserved for a removed value: peers that still use that value are misread"
            path, text = f"{old.full_name}.{names[0]} ({number})", f"{names[0]} = {number}"
            location = _location(files, new, names[0])
            yield Change("enum-number-reserved", "warning", path, message, "take another number", "", text, location)
    freed = kept.without(reserved.of_enum(new), now)
    if freed:
        yield reserved.reservation_removed(old.full_name, f"enum `{new.name}`", "value", freed, files.location(new))


def _check_json(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    kept = {value.name for value in new.values} | set(reserved.names_of_enum(new))
    names = [name for name in reserved.names_of_enum(old) if name not in kept]
    location = files.location(new)
    if names:
        yield reserved.names_removed(old.full_name, f"enum `{new.name}`", "value", names, location)
    yield from json_format_changes(old, new, location)


def _check_openness(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    if old.is_closed == new.is_closed:
        return
    was, is_now = ("closed" if each.is_closed else "open" for each in (old, new))
    message = f"the {was} enum became {is_now}: fields with a value that a closed enum does not know appear unset"
    remedy = "keep the syntax of the file, or the `enum_type` of the enum"
    yield Change("enum-closed", "warning", old.full_name, message, remedy, was, is_now, files.location(new))


def _names(enum: EnumDescriptor) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for value in enum.values:
        names.setdefault(value.number, []).append(value.name)
    return names


def _location(files: Descriptors, enum: EnumDescriptor, value: str) -> str:
    scope = enum.full_name.rpartition(".")[0]
    return files.location(enum, f"{scope}.{value}" if scope else value)
