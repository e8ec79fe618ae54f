"""What changed in enums, for those who wrote or read the old version of them. On the wire a value is its number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import EnumDescriptorProto

from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

    from sdk.descriptors import Descriptors


class Numbers:
    """The numbers in some ranges.

    Args:
        ranges: First and last number of each.

    Example:
        >>> 7 in Numbers([(1, 2), (5, 536870911)])
        True
    """

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = tuple(ranges)

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._ranges)


def check_enum(
    old: EnumDescriptor, new: EnumDescriptor, is_sent_by_clients: bool, files: Descriptors, json: bool
) -> list[Change]:
    """Return what changed in an enum.

    Args:
        old: What it was.
        new: What it is now.
        is_sent_by_clients: Whether old clients send it; else they only receive it.
        files: The files of the new version, for places.
        json: Also report what only clients notice that speak JSON.
    """
    return [*_check_values(old, new, is_sent_by_clients, files, json), *_check_openness(old, new, files)]


def _check_values(
    old: EnumDescriptor, new: EnumDescriptor, is_sent_by_clients: bool, files: Descriptors, json: bool
) -> Iterable[Change]:
    before, now = _names(old), _names(new)
    numbers = {name: number for number, names in now.items() for name in names}
    reserved = _reserved(new)
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
        elif number not in reserved:
            message = "the value is gone, and its number is free to be taken for another one, which would be misread"
            remedy = f"write `reserved {number};` in enum `{new.name}`, or keep the value"
            yield Change("enum-value-removed", "error", path, message, remedy, text, "", files.place(new))
        elif is_sent_by_clients:
            message = "the value is gone: the server does not know what clients send"
            remedy = "keep it while clients use it"
            yield Change("enum-value-removed", "warning", path, message, remedy, text, "", files.place(new))


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


def _reserved(enum: EnumDescriptor) -> Numbers:
    proto = EnumDescriptorProto()
    enum.CopyToProto(proto)
    # Unlike those of messages, the ends are reserved themselves.
    return Numbers((each.start, each.end) for each in proto.reserved_range)
