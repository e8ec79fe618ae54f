"""Fixes the output of other generators where names or comments have a meaning in Python. Pure: text in, text out.

* gRPC's plugin uses every name unchanged, so a ``_pb2_grpc`` module may not even compile: ``self.import = …``.
  The fixed module has the names of our bases for RPCs and services, and finds a message class with ``getattr``.
  The plugin also copies comments into docstrings unchanged, with their backslashes and quotes.
* mypy-protobuf renames a message ``None`` to ``_r_None``, but not in every reference. A name that a public import
  brings may be hidden by a message of the importing proto. A message may have the name of a module that the stub
  imports: ``sys``; or that of a class which the stub defines for an enum: ``_Color`` for ``Color``. Within a message, a
  definition of its name hides it; a field may have the name of a method of messages; and fields that differ in case
  only have one constant. The stub of a service ``ChatAsync`` may have the name of the async stub of ``Chat``.

protoc's own ``_pb2`` modules need no fix: they put such names into their namespace without spelling them.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from google.protobuf.message import Message

from codegen import naming

# Strings and comments come first, since text in them may look like code.
SKIPPED = r'''
    """ [^"\\]* (?: (?: \\. | "(?!"") ) [^"\\]* )* """
  | \'\'\' [^'\\]* (?: (?: \\. | '(?!'') ) [^'\\]* )* \'\'\'
  | " (?: [^"\\\n] | \\. )* "
  | ' (?: [^'\\\n] | \\. )* '
  | \#[^\n]*
'''
FLAGS = re.VERBOSE | re.MULTILINE | re.DOTALL

EMPTY: Mapping[str, str] = MappingProxyType({})

_WORDS = "|".join(keyword.kwlist)
# A class of one of these names would be no Python, or hide what the rest of gRPC's module uses.
_HIDING = frozenset({*keyword.kwlist, *vars(builtins), "grpc", "warnings"})

# gRPC's plugin writes fixed docstrings, and docstrings from comments. The code after a docstring shows where it ends.
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
  | ^class [ ] (?P<class> \w+) (?= (?: \(object\) )? :$ )
  | (?<= self\. ) (?P<rpc> \w+) (?= [ ] = [ ] channel\. )
  | (?<= def [ ] ) (?P<handler> \w+) (?= \( (?: self, [ ] )? request (?: _iterator )? \b )
  | (?<= servicer\. ) (?P<bound> \w+) (?= ,$ )
  | (?<! [\w.] ) (?P<module> \w+__pb2) \. (?P<message> [\w.]+) (?= \. (?: SerializeToString | FromString ) \b )
    """,
    FLAGS,
)

# A module of gRPC's that needs more than its docstrings fixed matches this. Most do not, and a search is faster.
_SUSPECT_GRPC = re.compile(rf"\.(?:__(?!version__)|(?:{_WORDS}|staticmethod)\b)|\nclass (?:{'|'.join(_HIDING)})\b")

# The same for a stub.
_SUSPECT = re.compile(
    rf"""
    \n from [ ] \S+ [ ] import [ ] (\w+) [ ] as [ ] \1 \n
  | \n [ ]* (?: {_WORDS} ) : [ ] \S
  | \n [ ]{{4}} (?: def [ ] )? __\w+ (?: (?: : | \(self\) [ ] -> ) [ ] _grpc_*\. | \( \n [ ]+ self, \n [ ]+ request )
    """,
    FLAGS,
)

# An import of a stub: `import sys`, `from typing import TypeAlias as _TypeAlias, Never as _Never`.
_IMPORT = re.compile(r"^[ ]*(?:from[ ]\S+[ ])?import[ ](?P<names>.+)$", re.MULTILINE)
# What a stub defines, in any scope, with a name that it may have imported too: names of imports begin with `_`.
_DEFINED = re.compile(r"\n[ ]*(?:class[ ]|def[ ])?(_[A-Za-z]\w*)(?=[(:])")
# A choice between two modules by the version of Python, and the import of `sys` for it. The second module always works.
_BY_VERSION = re.compile(r"^if sys\.version_info .*:\n(?:[ ]+.*\n)+else:\n[ ]+(.*\n)|^import sys\n", re.MULTILINE)

# The names of a message's methods, by the beginning of the constant that a field of such a name has.
_METHODS = {
    name.upper(): name
    for name in (*(name for name in dir(Message) if name[0] != "_"), "DESCRIPTOR", "Extensions", "FromString")
}
_NUMBER = "_FIELD_NUMBER: "
_NUMBERS = re.compile(rf"^(?:[ ]+\w+{_NUMBER}.*\n)+", re.MULTILINE)
# The first name of the path of an enum that is in a message, which the stub spells without `Global___`.
_OWNER = re.compile(r"_EnumTypeWrapper\[(?!Global___)(\w+)\.[\w.]+\.ValueType\]")
# A class in a message.
_NESTED = re.compile(r"  class (\w+)\(")
# The comment of something deprecated, in a decorator of mypy-protobuf, with its backslashes; the escapes of Python.
_DEPRECATED = re.compile(r'_deprecated\("""(?:[^"\\]|\\.|"(?!""))*"""\)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = frozenset("\\'\"abfnrtvxuUN01234567\n")
_ASYNC_STUB = re.compile(r"\nclass (\w+AsyncStub)\(")

# A message or an enum whose name begins with an underscore.
_UNDERSCORED = re.compile(r"class (_\w+)(?=\(_message|\(__)")
_CLASS_OF_ENUM = re.compile(r"class (_\w+):\n")
_UNDERSCORED_VALUE = re.compile(r" (_\w+): ")
# An enum: a class `_Color` with the type of its values, that of its descriptor, and `class Color`.
_ENUM = re.compile(
    r"""
    ^ (?P<indent> [ ]* ) class [ ] (?P<values> _(?P<enum> \w+ ) ) : \n
    .*? ^ (?P=indent) class [ ] (?P=enum) \( (?P=values) , [ ] metaclass=
    """,
    FLAGS,
)

# What follows the name of an RPC in a stub: of an attribute, of a property if it is deprecated, of a servicer's method.
_RPC_TYPE = r"(?: (?: : | \(self\) [ ] -> ) [ ] _(?: grpc | aio )_* \. | \( \n [ ]+ self, \n [ ]+ request )"
_RPC = re.compile(rf"^ [ ]{{4}} (?: def[ ] )? (\w+) {_RPC_TYPE}", FLAGS)

_STUB = re.compile(
    rf"""
    {SKIPPED}
  | ^from [ ] (?P<from> [^\n]+?) [ ] import [ ] (?P<public> \w+ ) [ ] as [ ] (?P=public) \n
  | ^ (?: from | import ) [ ] [^\n]*
  | ^ [ ]* (?P<variable> {_WORDS}) (?= :[ ]\S )
  | (?<! \w ) (?P<outer> {_WORDS}) (?= \.\w )
  | ^class [ ] (?P<class> \w+ )
  | (?: (?<= \n[ ]{{4}} ) | (?<= \n[ ]{{4}}def[ ] ) ) (?P<rpc> __\w+ ) (?= {_RPC_TYPE} )
    """,
    FLAGS,
)


def fix_up(files: Mapping[str, str], reserved: Mapping[str, str] = EMPTY) -> dict[str, str]:
    """Return generated files that Python and type checkers can read.

    Args:
        files: The text of each file by its path below the output folder, as named by the generators.
        reserved: The stubs with reserved names that these files may import, as ``with_reserved_names`` returns them.

    Example:
        >>> fix_up({"x_pb2_grpc.py": "        request_deserializer=x__pb2.None.FromString,"})["x_pb2_grpc.py"]
        '        request_deserializer=getattr(x__pb2, "None").FromString,'
    """
    fixed = dict(files)
    for path, text in files.items():
        if path.endswith("_pb2_grpc.py"):
            fixed[path] = _grpc(text)
        elif path.endswith(".pyi"):
            if "_deprecated(" in text and "\\" in text:
                text = _DEPRECATED.sub(lambda match: _ESCAPE.sub(_escape, match[0]), text)
            text = _rename_async_stubs(text) if path.endswith("_pb2_grpc.pyi") else _fix_messages(text)
            text = _rename_classes_of_enums(_rename_imports(text))
            fixed[path] = _stub(text, {**reserved, **files}) if "_r_" in text or _SUSPECT.search(text) else text
    return fixed


def with_reserved_names(files: Mapping[str, str]) -> dict[str, str]:
    """Return those stubs whose messages have a name that is reserved in Python: few in any tree."""
    return {path: text for path, text in files.items() if path.endswith(".pyi") and "\nclass _r_" in text}


def _grpc(text: str) -> str:
    text = _DOCSTRING.sub(_escaped, text)
    if not _SUSPECT_GRPC.search(text):
        return text
    names = _names(text)
    classes = -1

    def replaced(match: re.Match[str]) -> str:
        nonlocal classes
        if match["class"]:
            classes += 1
            # Each service has three classes: its stub, its servicer, and one with the name of the service.
            return f"class {match['class']}_" if match["class"] in _HIDING else match[0]
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
    """Return the new names of those RPCs of each service whose names gRPC's module can't use."""
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


def _escape(match: re.Match[str]) -> str:
    return match[0] if match[1] in _ESCAPES else f"\\{match[0]}"


def _fix_messages(text: str) -> str:
    """Return a stub of messages in which each definition is found, and none is there twice."""
    if "\nclass sys(" in text:  # mypy knows the version of Python by the name `sys` only
        text = _BY_VERSION.sub(lambda match: match[1] or "", text)
    messages = list(_numbers(text))
    if owners := set(_OWNER.findall(text)):
        text = _show_owners(text, owners, {name for names in messages for name in names})
    if any(len(set(names)) < len(names) for names in messages):
        text = _NUMBERS.sub(lambda match: "".join(dict.fromkeys(match[0].splitlines(keepends=True))), text)
    if methods := {_METHODS[name] for names in messages for name in names if name in _METHODS}:
        text = _ignore_overrides(text, methods)
    return text


def _show_owners(text: str, owners: Collection[str], fields: Collection[str]) -> str:
    """Return a stub in which these messages are found from within them. One scan for each name would take long."""
    nested = set(_NESTED.findall(text))
    for name in owners:
        hidden = (
            name in nested
            or f" {name}: {name}." in text
            or (name.upper() in fields and (f" def {name}(" in text or f" {name}: " in text))
        )
        if hidden and f"\nGlobal___{name}: " in text:
            text = re.sub(rf"(?<![\w.]){name}(?=[\w.]+\.ValueType\b)", f"Global___{name}", text)
    return text


def _numbers(text: str) -> Iterator[list[str]]:
    """Yield the names of each message's fields, in capitals."""
    *parts, _ = text.split(_NUMBER)
    names: list[str] = []
    for part in parts:
        if names and part.count("\n") > 1:
            yield names
            names = []
        names.append(part.rpartition("\n")[2].lstrip())
    yield names


def _ignore_overrides(text: str, methods: Collection[str]) -> str:
    """Return a stub in which fields may have the names of methods of messages: protobuf reads the field."""
    names = "|".join(sorted(methods))
    lines = re.compile(
        rf"^[ ]+(?:(?:{names}):[ ](?:_(?!descriptor\.)|Global___)|(?:@_\S+\n[ ]+)?def[ ](?:{names})\(self).*[^,\n]$",
        re.MULTILINE,
    )
    ignored = "  # type: ignore[assignment, no-redef, override, unused-ignore]"
    return lines.sub(lambda match: match[0].replace("\n", f"{ignored}\n") + ignored, text)


def _rename_async_stubs(text: str) -> str:
    """Return a stub of services in which the async stub of one has another name than the stub of another."""
    for name in _ASYNC_STUB.findall(text):
        if f"\nclass {name}:\n" in text:
            free = naming.free(name, set(re.findall(r"\w+", text)))
            text = re.sub(rf"(?<=^class ){name}(?=\()|(?<= -> ){name}(?=: \.\.\.$)", free, text, flags=re.MULTILINE)
    return text


def _rename_imports(text: str) -> str:
    """Return a stub whose imports have other names than its definitions, whose scopes would hide them."""
    end = max(text.rfind("\nDESCRIPTOR: "), text.find("\nGRPC_GENERATED_VERSION: "))
    head, rest = text[:end], text[end:]
    imported, public = set[str](), set[str]()
    for match in _IMPORT.finditer(head):
        for each in match["names"].split(", "):
            name, _, alias = each.partition(" as ")
            (public if name == alias else imported).add(alias or name)
    clashing = imported & {*_DEFINED.findall(rest), *public}
    if not clashing:
        return text
    words = set(re.findall(r"\w+", text))
    renamed = {name: naming.free(name if name.startswith("_") else f"_{name}", words) for name in clashing}
    names = "|".join(clashing)
    pattern = re.compile(
        rf"""
        {SKIPPED}
      | ^ [ ]* (?: class[ ] | def[ ] )? (?: {names} ) (?= [(:] )
      | (?: [ ]=[ ] | \( ) (?: {names} ) (?= [ ]* (?: \# | $ ) | , [ ] metaclass= )
      | ^ [ ]* (?: from [ ] \S+ [ ] )? import [ ] (?P<statement> [^\n]+ ) $
      | (?<! [\w.] ) (?P<used> {names} ) (?! \w | (?: \. \w+ )* \.ValueType\b )
        """,
        FLAGS,
    )

    def replaced(match: re.Match[str]) -> str:
        if match["used"]:
            return renamed[match["used"]]
        if match["statement"]:
            kept = match[0].removesuffix(match["statement"])
            return kept + ", ".join(_renamed_import(each, renamed) for each in match["statement"].split(", "))
        return match[0]

    return pattern.sub(replaced, text)


def _rename_classes_of_enums(text: str) -> str:
    """Return a stub whose enums have no class with the name of another definition."""
    defined = set(_UNDERSCORED.findall(text))
    if values := _UNDERSCORED_VALUE.findall(text):
        defined |= {*_CLASS_OF_ENUM.findall(text)}.intersection(values)
    if not defined:
        return text
    words = set(re.findall(r"\w+", text))

    def replaced(match: re.Match[str]) -> str:
        name = match["values"]
        if name not in defined:
            return match[0]
        return re.sub(rf"(?<=class ){name}(?=:)|(?<=[ \[(.]){name}(?=\.ValueType\b|, metaclass=)", free[name], match[0])

    free = {name: naming.free(f"{name}_", words) for name in defined}
    return _ENUM.sub(replaced, text)


def _renamed_import(imported: str, renamed: Mapping[str, str]) -> str:
    name, _, alias = imported.partition(" as ")
    if name == alias or (alias or name) not in renamed:
        return imported
    return f"{name} as {renamed[alias or name]}"


def _stub(text: str, files: Mapping[str, str]) -> str:
    rpcs: dict[str, str] = {}

    def replaced(match: re.Match[str]) -> str:
        if word := match["public"]:
            if not keyword.iskeyword(word):
                return "" if re.search(rf"^(class {word}\(|{word}: )", text, re.MULTILINE) else match[0]
            # A stub can't have an enum value or an extension of that name.
            stub = files.get(match["from"].replace(".", "/") + ".pyi", "")
            return f"from {match['from']} import _r_{word} as _r_{word}\n" if f"\nclass _r_{word}(" in stub else ""
        if match["class"]:
            end = text.find("\nclass ", match.end())
            names = _RPC.findall(text, match.end(), end if end > 0 else len(text))
            rpcs.update(zip(names, naming.rpcs(names), strict=True))
            return match[0]
        if match["rpc"]:
            return rpcs[match["rpc"]]
        if match["variable"]:  # an extension, perhaps of a message's scope
            return match[0].replace(match["variable"], f"_r_{match['variable']}")
        return f"_r_{match[0]}" if match.lastgroup else match[0]

    return _STUB.sub(replaced, text)
