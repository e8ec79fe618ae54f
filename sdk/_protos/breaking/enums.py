"""What changed in enums, for those who wrote or read the old version of them. On the wire a value is its number."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from sdk._protos.breaking import reserved
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

    from sdk._protos.descriptors import Descriptors


def check_enum(
    old: EnumDescriptor, new: EnumDescriptor, flows: Container[str], files: Descriptors, json: bool
) -> list[Change]:
    """Return what changed in an enum.

    Args:
        old: What it was.
        new: What it is now.
        flows: Where it travels: old clients send it in ``"requests"``, and receive it in ``"responses"``.
        files: The files of the new version, for places.
        json: Also report what only clients notice that speak JSON.
    """
    return [
        *_check_values(old, new, "requests" in flows, files, json),
        *(_check_added(old, new, files) if old.is_closed and "responses" in flows else ()),
        *_check_reserved(old, new, files),
        *_check_openness(old, new, files),
    ]


def _check_values(
    old: EnumDescriptor, new: EnumDescriptor, is_sent_by_clients: bool, files: Descriptors, json: bool
) -> Iterable[Change]:
    before, now = _names(old), _names(new)
    numbers = {name: number for number, names in now.items() for name in names}
    kept = reserved.of_enum(new)
    for number, names in before.items():
        first = names[0]
        path = f"{old.full_name}.{first} ({number})"
        text = f"{first} = {number}"
        # An alias that stays keeps the number alive.
        if not set(names).isdisjoint(now.get(number, ())):
            continue
        if first in numbers:
            message = f"the value has the number {numbers[first]} now: what was sent as {number} is not read as it"
            remedy = f"give `{first}` its number {number} again"
            place = _place(files, new, first)
            yield Change(
                "enum-value-number", "error", path, message, remedy, text, f"{first} = {numbers[first]}", place
            )
        elif number in now:
            if json:
                renamed = now[number][0]
                message = f"its name in JSON `{first}` became `{renamed}`"
                remedy = f"keep `{first}`; `allow_alias` lets two names have one number"
                place = _place(files, new, renamed)
                yield Change("enum-value-name", "warning", path, message, remedy, text, f"{renamed} = {number}", place)
        elif number not in kept:
            message = "the value is gone, and its number is free to be taken for another one, which would be misread"
            remedy = f"write `reserved {number};` in enum `{new.name}`, or keep the value"
            yield Change("enum-value-removed", "error", path, message, remedy, text, "", files.place(new))
        elif is_sent_by_clients:
            message = "the value is gone: the server does not know what clients send"
            remedy = "keep it while clients use it"
            yield Change("enum-value-removed", "warning", path, message, remedy, text, "", files.place(new))


def _check_added(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    before = _names(old)
    for number, names in _names(new).items():
        if number not in before:
            message = "the value is new, and clients do not know it: as the enum is closed, they find the field unset"
            path, text = f"{old.full_name}.{names[0]} ({number})", f"{names[0]} = {number}"
            remedy = "answer with it only where clients ask for it"
            place = _place(files, new, names[0])
            yield Change("enum-value-added", "warning", path, message, remedy, "", text, place)


def _check_reserved(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    before, now, kept = _names(old), _names(new), reserved.of_enum(old)
    for number, names in now.items():
        if number in kept and number not in before:
            message = "the number was reserved for a value that is gone: who still uses that one is misread"
            path, text = f"{old.full_name}.{names[0]} ({number})", f"{names[0]} = {number}"
            place = _place(files, new, names[0])
            yield Change("enum-number-reserved", "warning", path, message, "take another number", "", text, place)
    freed = kept.without(reserved.of_enum(new), now)
    if freed:
        yield reserved.removed(old.full_name, f"enum `{new.name}`", "value", freed, files.place(new))


def _check_openness(old: EnumDescriptor, new: EnumDescriptor, files: Descriptors) -> Iterable[Change]:
    if old.is_closed == new.is_closed:
        return
    was, is_now = ("closed" if each.is_closed else "open" for each in (old, new))
    message = f"the {was} enum became {is_now}: fields with a value that a closed enum does not know seem unset"
    remedy = "leave the file its syntax, or the enum its `enum_type`"
    yield Change("enum-closed", "warning", old.full_name, message, remedy, was, is_now, files.place(new))


def _names(enum: EnumDescriptor) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for value in enum.values:
        names.setdefault(value.number, []).append(value.name)
    return names


def _place(files: Descriptors, enum: EnumDescriptor, value: str) -> str:
    scope = enum.full_name.rpartition(".")[0]
    return files.place(enum, f"{scope}.{value}" if scope else value)
