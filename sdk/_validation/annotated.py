"""The messages whose protos have rules: decided by their descriptors, without the package that evaluates rules.

The options of descriptors are read as bytes. So no copy of ``buf/validate/validate.proto`` is imported here: it could
clash with that of the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sdk._gen.rule_options_pb2 import RuleOptions

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


def rules_of(element: Any) -> bytes:
    """Return the serialized rules of a message, a field or a oneof; empty if it has none.

    Args:
        element: Its descriptor.

    Example:
        >>> from google.protobuf.timestamp_pb2 import Timestamp
        >>> rules_of(Timestamp.DESCRIPTOR)
        b''
    """
    if not element.has_options:
        return b""
    options = RuleOptions.FromString(element.GetOptions().SerializeToString())
    return b"".join(options.rules)  # parts of one message merge when they are parsed together


def elements(message: Descriptor) -> Iterator[Any]:
    """Yield the descriptors that can have rules: the message itself, its fields and its oneofs."""
    yield message
    yield from message.fields
    yield from message.oneofs


def reachable(message: Descriptor) -> dict[str, Descriptor]:
    """Return a message and all messages in its fields, by full name. Extensions and ``Any`` are not looked into."""
    found: dict[str, Descriptor] = {}
    waiting = [message]
    while waiting:
        each = waiting.pop()
        if each.full_name not in found:
            found[each.full_name] = each
            waiting += [field.message_type for field in each.fields if field.message_type is not None]
    return found


def has_rules(message: Any) -> bool:
    """Return whether a message, or a message in one of its fields, has a rule.

    Args:
        message: Its descriptor; protobuf has two classes of them.

    Example:
        >>> from google.protobuf.timestamp_pb2 import Timestamp
        >>> has_rules(Timestamp.DESCRIPTOR)
        False
    """
    return any(rules_of(element) for each in reachable(message).values() for element in elements(each))
