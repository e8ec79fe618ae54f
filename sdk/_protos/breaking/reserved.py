"""Reserved numbers of messages and enums, which protect removed fields and values from reuse.

See https://protobuf.dev/programming-guides/proto3/#reserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto

from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor

# Values of `max`: the largest number of a field, and of an enum value
# (https://protobuf.dev/reference/protobuf/proto3-spec/#reserved).
_MAX = (536_870_911, 2_147_483_647)


class NumberRanges:
    """Set of numbers, as ranges.

    Args:
        ranges: First and last number of each range.

    Example:
        >>> 7 in NumberRanges([(1, 2), (5, 536870911)])
        True
    """

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = tuple(sorted(ranges))

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __str__(self) -> str:
        """Return the ranges in proto syntax, ``"1, 4 to 7, 9 to max"``."""
        return ", ".join(_format_range(first, last) for first, last in self._ranges)

    def without(self, others: NumberRanges, used: Iterable[int] = ()) -> NumberRanges:
        """Return the numbers that are neither in other ranges nor among single numbers.

        Args:
            others: The ranges.
            used: The single numbers.

        Example:
            >>> str(NumberRanges([(1, 9)]).without(NumberRanges([(3, 4)]), [9]))
            '1 to 2, 5 to 8'
        """
        left = list(self._ranges)
        for first, last in (*others._ranges, *((number, number) for number in used)):
            left = [part for each in left for part in _outside(each, first, last)]
        return NumberRanges(left)


def of_message(message: Descriptor) -> NumberRanges:
    """Return the reserved numbers of a message."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return NumberRanges((each.start, each.end - 1) for each in proto.reserved_range)


def of_enum(enum: EnumDescriptor) -> NumberRanges:
    """Return the reserved numbers of an enum."""
    proto = EnumDescriptorProto()
    enum.CopyToProto(proto)
    # Unlike the ends of message ranges, the ends of enum ranges are inclusive.
    return NumberRanges((each.start, each.end) for each in proto.reserved_range)


def names_of_message(message: Descriptor) -> list[str]:
    """Return the reserved names of a message."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return list(proto.reserved_name)


def names_of_enum(enum: EnumDescriptor) -> list[str]:
    """Return the reserved names of an enum."""
    proto = EnumDescriptorProto()
    enum.CopyToProto(proto)
    return list(proto.reserved_name)


def names_removed(full_name: str, owner: str, kind: str, names: Iterable[str], location: str) -> Change:
    """Return the change for names that are no longer reserved and not in use.

    Args:
        full_name: Full name of the message or the enum.
        owner: Its kind and its new name, for the remedy.
        kind: ``"field"`` or ``"value"``.
        names: The names.
        location: Location in the new version.
    """
    text = "reserved " + ", ".join(f'"{name}"' for name in names) + ";"
    return Change(
        "reserved-removed",
        "warning",
        full_name,
        f"`{text}` is gone: another {kind} may take the name of a removed one, and JSON be misread",
        f"write `{text}` in {owner} again",
        text,
        "",
        location,
    )


def reservation_removed(full_name: str, owner: str, kind: str, freed: NumberRanges, location: str) -> Change:
    """Return the change for numbers that are no longer reserved and not in use.

    Args:
        full_name: Full name of the message or the enum.
        owner: Its kind and its new name, for the remedy, "message `Reply`".
        kind: ``"field"`` or ``"value"``.
        freed: The numbers.
        location: Location in the new version.
    """
    return Change(
        "reserved-removed",
        "warning",
        full_name,
        f"`reserved {freed};` is gone: another {kind} may reuse a number of a removed one and be misread",
        f"write `reserved {freed};` in {owner} again",
        f"reserved {freed};",
        "",
        location,
    )


def _outside(whole: tuple[int, int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range outside another range."""
    start, end = whole
    if start <= min(end, first - 1):
        yield start, min(end, first - 1)
    if max(start, last + 1) <= end:
        yield max(start, last + 1), end


def _format_range(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last in _MAX else last}"
