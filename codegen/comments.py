"""Comments of protos.

protoc takes any bytes in a comment. Python's protobuf gives a text that is not UTF-8 as bytes, which most code does not
expect (https://protobuf.dev/programming-guides/proto3/#scalar: a string must be UTF-8).
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, SourceCodeInfo

_INDENTATION = re.compile(r"^[^\S\n]+", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")


def comment(place: SourceCodeInfo.Location | None) -> str:
    """Return the comment of a place in a proto, without its markers; bytes that are not UTF-8 become U+FFFD.

    Args:
        place: The place; None has no comment.
    """
    if place is None:
        return ""
    text = _utf8(place.leading_comments or place.trailing_comments).replace("\r\n", "\n").replace("\r", "\n")
    text = text.removeprefix("*")  # the second star of a comment that begins with /**
    # Spaces of other scripts are indentation too.
    text = _INDENTATION.sub(lambda match: " " * len(match[0].expandtabs()), text)
    # cleandoc treats the indentation of the first line separately; in a proto it is that of the other lines.
    lines = inspect.cleandoc("\n" + _CONTROL.sub(" ", text)).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def repair(file: FileDescriptorProto) -> bool:
    """Replace bytes that are not UTF-8 in the comments of a file, and return whether there were any."""
    found = False
    for place in file.source_code_info.location:
        leading, trailing = _utf8(place.leading_comments), _utf8(place.trailing_comments)
        if (leading, trailing) != (place.leading_comments, place.trailing_comments):
            place.leading_comments, place.trailing_comments = leading, trailing
            found = True
    return found


def _utf8(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
