"""Numbers that messages and enums keep for what is gone, so that nothing else is given them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto

from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor

# What `max` stands for: the largest number of a field, and of a value (protobuf's language specification).
_MAX = (536_870_911, 2_147_483_647)


class Numbers:
    """The numbers in some ranges.

    Args:
        ranges: First and last number of each.

    Example:
        >>> 7 in Numbers([(1, 2), (5, 536870911)])
        True
    """

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = tuple(sorted(ranges))

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __str__(self) -> str:
        """Return them as a proto file spells them, ``"1, 4 to 7, 9 to max"``."""
        return ", ".join(_spell(first, last) for first, last in self._ranges)

    def without(self, others: Numbers, used: Iterable[int] = ()) -> Numbers:
        """Return those that are not among others.

        Args:
            others: More numbers.
            used: And single ones.

        Example:
            >>> str(Numbers([(1, 9)]).without(Numbers([(3, 4)]), [9]))
            '1 to 2, 5 to 8'
        """
        left = list(self._ranges)
        for first, last in (*others._ranges, *((number, number) for number in used)):
            left = [part for each in left for part in _outside(each, first, last)]
        return Numbers(left)


def of_message(message: Descriptor) -> Numbers:
    """Return the reserved numbers of a message."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return Numbers((each.start, each.end - 1) for each in proto.reserved_range)


def of_enum(enum: EnumDescriptor) -> Numbers:
    """Return the reserved numbers of an enum."""
    proto = EnumDescriptorProto()
    enum.CopyToProto(proto)
    # Unlike those of messages, the ends are reserved themselves.
    return Numbers((each.start, each.end) for each in proto.reserved_range)


def removed(full_name: str, owner: str, kind: str, freed: Numbers, place: str) -> Change:
    """Return the change that numbers are no longer reserved, and not used either.

    Args:
        full_name: Full name of the message or the enum.
        owner: What it is called now, with what it is.
        kind: What has a number there: ``"field"`` or ``"value"``.
        freed: The numbers.
        place: Where it is.
    """
    return Change(
        "reserved-removed",
        "warning",
        full_name,
        f"`reserved {freed};` is gone: another {kind} may take what was kept for one that is gone, and be misread",
        f"write `reserved {freed};` in {owner} again",
        f"reserved {freed};",
        "",
        place,
    )


def _outside(whole: tuple[int, int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield what is left of a range without another one."""
    start, end = whole
    if start <= min(end, first - 1):
        yield start, min(end, first - 1)
    if max(start, last + 1) <= end:
        yield max(start, last + 1), end


def _spell(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last in _MAX else last}"
