"""Comparison of validation rules, ``buf.validate``: those that refuse requests which the old version takes.

See https://protovalidate.com. The rules are read with the classes of the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sdk._protos.custom_options import custom_option
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from sdk._protos.descriptors import Descriptors

_FIELD, _MESSAGE, _ONEOF = "buf.validate.field", "buf.validate.message", "buf.validate.oneof"
_LOWER = {"min_len", "min_bytes", "min_items", "min_pairs", "gt", "gte"}
_UPPER = {"max_len", "max_bytes", "max_items", "max_pairs", "lt", "lte", "within"}
# Rules that no value breaks.
_HARMLESS = {"example", "strict"}
_IGNORE = {0: 0, 1: 1, 3: 2}  # the value of `ignore`, and how much it ignores

Leaf = tuple[str, Any]


def check_rules(old: Descriptor, new: Descriptor, files: Descriptors) -> Iterator[Change]:
    """Yield a change for each element of a request whose rules refuse more than before.

    Args:
        old: The message in the old version.
        new: The message in the new version.
        files: The files of the new version, for locations.
    """
    before = {field.number: field for field in old.fields}
    for field in new.fields:
        rules = _leaves(custom_option(field, _FIELD))
        known = before.get(field.number)
        if known is None:
            reasons = list(_refused_when_unset(field, rules))
        else:
            reasons = list(_stricter(_leaves(custom_option(known, _FIELD)), rules))
        if reasons:
            yield _change(f"{old.full_name}.{field.name} ({field.number})", field, reasons, files, known is None)
    oneofs = {oneof.name: oneof for oneof in old.oneofs}
    for oneof in new.oneofs:
        earlier = _leaves(custom_option(oneofs[oneof.name], _ONEOF)) if oneof.name in oneofs else {}
        reasons = list(_stricter(earlier, _leaves(custom_option(oneof, _ONEOF))))
        if reasons:
            yield _change(f"{old.full_name}.{oneof.name}", new, reasons, files)
    reasons = list(_stricter(_leaves(custom_option(old, _MESSAGE)), _leaves(custom_option(new, _MESSAGE))))
    if reasons:
        yield _change(old.full_name, new, reasons, files)


def _change(path: str, element: Any, reasons: list[str], files: Descriptors, is_new: bool = False) -> Change:
    what = "the field is new, and " if is_new else ""
    remedy = "make the field optional and drop the rule" if is_new else "keep the rule as it was"
    message = f"{what}{'; '.join(reasons)}: requests that were right may end INVALID_ARGUMENT"
    return Change("validation-stricter", "error", path, message, remedy, "", "", files.location(element))


def _leaves(rules: Any, prefix: str = "") -> dict[str, Any]:
    """Return the rules that are set by their dotted names, ``{"string.min_len": 1}``; CEL expressions by their id."""
    found: dict[str, Any] = {}
    for field, value in rules.ListFields() if rules is not None else ():
        name = f"{prefix}{field.full_name if field.is_extension else field.name}"
        message = field.message_type
        if message is not None and message.full_name in ("buf.validate.Rule", "buf.validate.MessageOneofRule"):
            for each in value:
                key = getattr(each, "id", "") or ", ".join(getattr(each, "fields", ())) or each.expression
                found[f"{name} {key}"] = each.SerializeToString(deterministic=True)
        elif message is not None and message.full_name.endswith("Rules"):
            found |= _leaves(value, f"{name}.")
        elif isinstance(value, (str, bytes, bool, int, float)):
            found[name] = value
        elif field.name in ("in", "not_in"):
            found[name] = [_plain(each) for each in value]
        else:
            found[name] = _plain(value) if message is not None and not hasattr(value, "append") else list(value)
    return found


def _plain(value: Any) -> Any:
    # Durations and timestamps, which have no order.
    return (value.seconds, value.nanos) if hasattr(value, "nanos") else value


def _stricter(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that refuse more."""
    for name, value in now.items():
        last = name.rpartition(".")[2]
        if last in _HARMLESS or value is False or (name in before and before[name] == value):
            continue
        if name.endswith("ignore"):
            if _IGNORE.get(value, 0) < _IGNORE.get(before.get(name, 0), 0) and len(now) > 1:
                yield f"`{name}` ignores less"
        elif name not in before and not _is_bound_that_was_there(before, name, value):
            yield f"the rule `{name}`{_shown(value)} is new"
        elif name in before and _refuses_more(last, before[name], value):
            yield f"the rule `{name}` became stricter ({_text(before[name])} → {_text(value)})"
    for name, value in before.items():
        if name.endswith("ignore") and name not in now and value and now:
            yield f"`{name}` is gone, so that values are checked which were not"


def _is_bound_that_was_there(before: Mapping[str, Any], name: str, value: Any) -> bool:
    """Return whether another rule refused at least as much: `gte` for `gt`, `const` or `in` for a bound."""
    stem, _, last = name.rpartition(".")
    pairs = {"gt": "gte", "gte": "gt", "lt": "lte", "lte": "lt"}
    if last not in pairs:
        return False
    other = before.get(f"{stem}.{pairs[last]}")
    if other is None:
        return False
    if last in ("gt", "gte"):
        return bool(other >= value if last == "gte" else other > value)
    return bool(other <= value if last == "lte" else other < value)


def _refuses_more(last: str, before: Any, now: Any) -> bool:
    if last in _LOWER:
        return bool(now > before)
    if last in _UPPER:
        return bool(now < before)
    if last == "in":
        return not set(map(repr, before)) <= set(map(repr, now))
    if last == "not_in":
        return not set(map(repr, now)) <= set(map(repr, before))
    return True


def _refused_when_unset(field: FieldDescriptor, rules: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules of a new field that its absence breaks: old clients never set it."""
    if rules.get("required"):
        yield "the rule `required` needs it"
        return
    if field.has_presence or rules.get("ignore", 0):
        return
    for name, value in rules.items():
        if "." in name.partition(".")[2]:
            continue  # of elements, and the field is empty
        if _breaks_when_unset(name.rpartition(".")[2], value):
            yield f"the rule `{name}`{_shown(value)} refuses its unset value"


def _breaks_when_unset(last: str, value: Any) -> bool:
    if last in _HARMLESS or value is False or last in ("unique", "defined_only", "finite"):
        return False
    if last in ("min_len", "min_bytes", "min_items", "min_pairs", "len", "len_bytes"):
        return bool(value > 0)
    if last in ("max_len", "max_bytes", "max_items", "max_pairs", "not_contains", "not_in"):
        return last == "not_in" and any(not each for each in value)
    bounds = {"gt": lambda bound: bound >= 0, "gte": lambda bound: bound > 0}
    bounds |= {"lt": lambda bound: bound <= 0, "lte": lambda bound: bound < 0}
    if last in bounds:
        return bool(bounds[last](value))
    if last == "in":
        return all(value)
    if last == "pattern":
        try:
            return re.search(value, "") is None
        except re.error:
            return True
    return bool(value)


def _shown(value: Any) -> str:
    return "" if value is True or isinstance(value, bytes) else f" ({_text(value)})"


def _text(value: Any) -> str:
    return "another expression" if isinstance(value, bytes) else str(value)
