"""Mends what other generators make of names and comments that mean something to Python. Pure: text in, text out.

* gRPC's plugin takes every name as it is, so that a ``_pb2_grpc`` module may not even compile: ``self.import = …``.
  RPCs and services get the names there that our bases give them; a message class is found with ``getattr``.
  Comments become docstrings there as they are, backslashes and quotes too.
* mypy-protobuf calls a message ``None`` ``_r_None``, but not everywhere that it refers to it. What a public import
  brings may have the name of a message of the importing proto, which hides it.

protoc's own ``_pb2`` modules need no mending: they put such names into their namespace without spelling them.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from codegen import naming

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

# Strings and comments come first: what looks like code in them is none.
SKIPPED = r'''
    """ [^"\\]* (?: (?: \\. | "(?!"") ) [^"\\]* )* """
  | \'\'\' [^'\\]* (?: (?: \\. | '(?!'') ) [^'\\]* )* \'\'\'
  | " (?: [^"\\\n] | \\. )* "
  | ' (?: [^'\\\n] | \\. )* '
  | \#[^\n]*
'''
FLAGS = re.VERBOSE | re.MULTILINE | re.DOTALL

# What Python, or the code that gRPC's plugin writes, can't have as a name.
_RESERVED = (*keyword.kwlist, "staticmethod")
_WORDS = "|".join(keyword.kwlist)

# gRPC's plugin writes docstrings of its own, and some that it makes of comments. The code behind one shows where it
# ends.
_DOCSTRING = re.compile(
    r"""
    ^ (?P<open> (?P<indent> [ ]+ ) \"\"\" )
    (?: Missing[ ]associated[^\n]*\"\"\"$
      | Constructor\.\n\n .*? \n (?P=indent) \"\"\"
      | (?P<text> .*? ) (?P<close> \n (?P=indent) \"\"\" )
        (?= \n [ ]+ context\.set_code | \n\n [ ]{4} (?: def[ ] | @staticmethod ) | \n\n\n | \n* \Z )
    )
    """,
    FLAGS,
)

_GRPC = re.compile(
    rf"""
    {SKIPPED}
  | ^class [ ] (?P<class> \w+) (?= :$ )
  | (?<= self\. ) (?P<rpc> \w+) (?= [ ] = [ ] channel\. )
  | (?<= def [ ] ) (?P<handler> \w+) (?= \( (?: self, [ ] )? request (?: _iterator )? \b )
  | (?<= servicer\. ) (?P<bound> \w+) (?= ,$ )
  | (?<! [\w.] ) (?P<module> \w+__pb2) \. (?P<message> [\w.]+) (?= \. (?: SerializeToString | FromString ) \b )
    """,
    FLAGS,
)

_STUB = re.compile(
    rf"""
    {SKIPPED}
  | ^from [ ] (?P<from> [^\n]+?) [ ] import [ ] (?P<public> \w+ ) [ ] as [ ] (?P=public) \n
  | ^ (?: from | import ) [ ] [^\n]*
  | ^ (?P<variable> {_WORDS}) (?= :[ ]\S )
  | (?<! \w ) (?P<outer> {_WORDS}) (?= \.\w )
  | (?: (?<= \n[ ]{{4}} ) | (?<= \n[ ]{{4}}def[ ] ) ) (?P<rpc> __\w+ ) (?= : [ ] _(?: grpc | aio ) \. | \( \n )
    """,
    FLAGS,
)


# A name is the first field of everything that has one: its tag, the length, the text.
_NAME = re.compile(
    b"\n(?:.__|" + b"|".join(re.escape(bytes([len(word)])) + word.encode() for word in _RESERVED) + b")", re.DOTALL
)
# In a comment.
_ESCAPE = re.compile(rb"\\|\"\"\"")


def plain(descriptors: FileDescriptorSet) -> list[str]:
    """Return the names of the protos whose code needs no mending. Quicker than to look for it in the code.

    Example:
        >>> from google.protobuf.descriptor_pb2 import FileDescriptorSet
        >>> plain(FileDescriptorSet(file=[{"name": "a.proto"}, {"name": "b.proto", "public_dependency": [0]}]))
        ['a.proto']
        >>> plain(FileDescriptorSet(file=[{"name": "a.proto", "message_type": [{"name": "None"}]}]))
        []
    """
    files = {file.name: file.SerializeToString() for file in descriptors.file}
    if any(_NAME.search(content) for content in files.values()):  # others may refer to what has the name
        return []
    return [
        file.name
        for file in descriptors.file
        if not file.public_dependency
        # The bytes may be those of a number; reading comments one by one takes longer.
        and not (file.service and _ESCAPE.search(files[file.name]) and any(map(_ESCAPE.search, _comments(file))))
    ]


def _comments(file: FileDescriptorProto) -> Iterator[bytes]:
    for place in file.source_code_info.location:
        for text in (place.leading_comments, place.trailing_comments, *place.leading_detached_comments):
            yield text.encode()


def mend(files: Mapping[str, str], plain: Collection[str] = ()) -> dict[str, str]:
    """Return a tree of generated files that Python and type checkers can read.

    Args:
        files: The text of each file by its path below the output folder, as the generators name it.
        plain: Paths of files that need no mending.

    Example:
        >>> mend({"x_pb2_grpc.py": "        request_deserializer=x__pb2.None.FromString,"})["x_pb2_grpc.py"]
        '        request_deserializer=getattr(x__pb2, "None").FromString,'
    """
    mended = dict(files)
    for path, text in files.items():
        if path in plain:
            continue
        if path.endswith("_pb2_grpc.py"):
            mended[path] = _grpc(text)
        elif path.endswith(".pyi"):
            mended[path] = _stub(text, files, grpc=path.endswith("_pb2_grpc.pyi"))
    return mended


def _grpc(text: str) -> str:
    text = _DOCSTRING.sub(_escaped, text)
    names = _names(text)
    classes = -1

    def replaced(match: re.Match[str]) -> str:
        nonlocal classes
        if match["class"]:
            classes += 1
            # Of each service come its stub, its servicer, and a class that is called as the service itself.
            return f"class {match['class']}_" if keyword.iskeyword(match["class"]) else match[0]
        if match["message"]:
            return naming.message(match["module"], match["message"], mangled=True)
        return names[classes // 3].get(match[0], match[0]) if match.lastgroup else match[0]

    return _GRPC.sub(replaced, text)


def _escaped(match: re.Match[str]) -> str:
    if match["text"] is None:
        return match[0]
    text = match["text"].replace("\\", r"\\").replace('"""', r"\"\"\"")
    return match["open"] + text + match["close"]


def _names(text: str) -> list[dict[str, str]]:
    """Return the new names of each service's RPCs that gRPC can't use as they are."""
    services: list[list[str]] = []
    classes = 0
    for match in _GRPC.finditer(text):
        if match["class"]:
            if classes % 3 == 0:
                services.append([])
            classes += 1
        elif match["rpc"]:
            services[-1].append(match["rpc"])
    return [dict(_unusable(names)) for names in services]


def _unusable(rpcs: list[str]) -> Iterator[tuple[str, str]]:
    for name, python_name in zip(rpcs, naming.rpcs(rpcs), strict=True):
        if keyword.iskeyword(name) or name == "staticmethod" or (name.startswith("__") and name != python_name):
            yield name, python_name


def _stub(text: str, files: Mapping[str, str], *, grpc: bool) -> str:
    def replaced(match: re.Match[str]) -> str:
        if word := match["public"]:
            if not keyword.iskeyword(word):
                return "" if re.search(rf"^(class {word}\(|{word}: )", text, re.MULTILINE) else match[0]
            # An enum value or an extension of that name has no place in a stub.
            stub = files.get(match["from"].replace(".", "/") + ".pyi", "")
            return f"from {match['from']} import _r_{word} as _r_{word}\n" if f"\nclass _r_{word}(" in stub else ""
        if match["rpc"]:
            return naming.rpc(match["rpc"]) if grpc else match[0]
        return f"_r_{match[0]}" if match.lastgroup else match[0]

    return _STUB.sub(replaced, text)
