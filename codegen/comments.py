"""Comments of protos.

protoc takes any bytes in a comment. Python's protobuf gives a text that is not UTF-8 as bytes, which most code does not
expect (https://protobuf.dev/programming-guides/proto3/#scalar: a string must be UTF-8).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, SourceCodeInfo

# The indentation of a line, if it has another character than spaces.
_INDENTATION = re.compile(r"^ *[^\S\n ][^\S\n]*", re.MULTILINE)
# A comment of such characters has none that the next two patterns match.
_PLAIN = re.compile(r"[ -~\n]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")


def comment(place: SourceCodeInfo.Location | None) -> str:
    """Return the comment of a place in a proto, without its markers; bytes that are not UTF-8 become U+FFFD.

    Args:
        place: The place; None has no comment.
    """
    if place is None:
        return ""
    # A comment that begins with /** has a star.
    text = _utf8(place.leading_comments or place.trailing_comments).removeprefix("*")
    if not text:
        return ""
    if not _PLAIN.fullmatch(text):
        text = _with_plain_spaces(text)
    lines = [line.rstrip() for line in text.split("\n")]
    margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return "\n".join([line[margin:] for line in lines]).strip("\n")


def _with_plain_spaces(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Spaces of other scripts are indentation too.
    text = _INDENTATION.sub(lambda match: " " * len(match[0].expandtabs()), text)
    return _CONTROL.sub(" ", text).expandtabs()


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
