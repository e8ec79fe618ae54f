"""``sdk check --fix``: write the methods that a class lacks at the end of its body, with the imports that they need.

Lines are only added, so every other line keeps its format. Before a file is written, Python must parse the result.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import inspect
import io
import keyword
import sys
import tokenize
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sdk._contract import locations
from sdk._contract.class_rules import unwritten_methods
from sdk._contract.implementations import find_implementation, generated_bases
from sdk._error_text import os_reason
from sdk.cli.check.added_imports import ImportedName, add_imports
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk.service import Method


@dataclass(frozen=True, slots=True)
class Written:
    """Methods that were written into a class.

    Attributes:
        cls: The class.
        place: Where it is defined, ``"app.py:7"``.
        methods: The RPCs.
    """

    cls: type
    place: str
    methods: tuple[Method, ...]


def write_missing_methods(classes: Iterable[type]) -> list[Written]:
    """Write a method for each RPC that a class lacks; each raises NotImplementedError until its author completes it.

    A method that seems to be a misspelled RPC is left to the author.

    Args:
        classes: Classes of modules that were imported from their present source. Only files in the working directory
            are changed.

    Returns:
        What was written, in the order of the classes.

    Raises:
        OptionsError: A file can't be changed.
    """
    missing = {cls: tuple(methods) for cls in classes if (methods := unwritten_methods(cls))}
    by_file: dict[Path, list[type]] = {}
    for cls in missing:
        by_file.setdefault(_file_of(cls), []).append(cls)
    changed = {path: _changed(path, {cls: missing[cls] for cls in found}) for path, found in by_file.items()}
    written = [Written(cls, locations.of_class(cls), methods) for cls, methods in missing.items()]
    for path, content in changed.items():
        try:
            path.write_bytes(content)
        except OSError as error:
            raise OptionsError(f"--fix: can't write to {path}: {os_reason(error)}") from None
    return written


def _file_of(cls: type) -> Path:
    try:
        path = Path(inspect.getfile(cls)).resolve()
    except (OSError, TypeError):
        raise OptionsError(f"--fix: the source of {cls.__name__} is not available") from None
    if not path.is_relative_to(Path.cwd().resolve()):
        raise OptionsError(f"--fix: {path}, which defines {cls.__name__}, is not in the working directory")
    return path


def _changed(path: Path, missing: Mapping[type, Sequence[Method]]) -> bytes:
    """Return the content of a file with the missing methods of its classes."""
    try:
        content = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        source = content.decode(encoding)
        tree = ast.parse(source)
    except OSError as error:
        raise OptionsError(f"--fix: can't read {path}: {os_reason(error)}") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise OptionsError(f"--fix: can't read {path}: {error}") from None
    newline = "\r\n" if "\r\n" in source else "\n"
    lines = source.split(newline)
    if any("\r" in line or "\n" in line for line in lines):
        raise OptionsError(f"--fix: {path} mixes kinds of line ends")
    names = _Names(sys.modules[next(iter(missing)).__module__], tree)
    nodes = {cls: _find_class(cls, tree, path) for cls in missing}
    # From the last class to the first, so that the lines of the others stay where they are.
    for cls, node in sorted(nodes.items(), key=lambda item: item[1].lineno, reverse=True):
        _insert(lines, node, _definitions(cls, missing[cls], names))
    add_imports(lines, tree, names.imports, names.module.__package__ or "")
    text = "\n".join([*lines, ""] if lines[-1] else lines)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise OptionsError(f"--fix: can't write into {path}: the result would not be Python: {error}") from None
    return text.replace("\n", newline).encode(encoding)


def _find_class(cls: type, tree: ast.Module, path: Path) -> ast.ClassDef:
    """Return the ``class`` statement of a class."""
    try:
        first = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        first = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if begin <= first <= node.lineno:
                return node
    raise OptionsError(f"--fix: {path} does not have the `class` statement of {cls.__name__}")


def _insert(lines: list[str], node: ast.ClassDef, definitions: Iterable[Sequence[str]]) -> None:
    """Insert methods at the end of the body of a class, in place of a body that is only ``pass`` or ``...``."""
    first, last = node.body[0], node.body[-1]
    assert last.end_lineno is not None
    header = lines[first.lineno - 1]
    is_one_line = bool(header[: _characters(header, first.col_offset)].strip())
    outer = lines[node.lineno - 1][: _characters(lines[node.lineno - 1], node.col_offset)]
    indent = outer + _unit(lines) if is_one_line else header[: _characters(header, first.col_offset)]
    added = [line for definition in definitions for line in ("", *(indent + text for text in definition))]
    unit = _unit(lines)
    added = [line.replace("\t", unit) if unit != "\t" else line for line in added]
    end = last.end_lineno
    if is_one_line:
        before = header[: _characters(header, first.col_offset)].rstrip()
        statement = header[_characters(header, first.col_offset) :]
        kept = [before] if _is_placeholder(last) and len(node.body) == 1 else [before, indent + statement]
        if len(kept) == 1 and "#" in statement:
            kept = [f"{before}  {statement[statement.index('#') :]}"]
        lines[first.lineno - 1 : end] = [*kept, *(added[1:] if len(kept) == 1 else added)]
        return
    while end < len(lines) and lines[end].startswith(indent) and lines[end].lstrip().startswith("#"):
        end += 1  # a comment after the last statement belongs to it
    if _is_placeholder(last) and lines[last.lineno - 1].strip() in ("pass", "..."):
        begin = last.lineno - 1
        while begin and not lines[begin - 1].strip():
            begin -= 1
        lines[begin:end] = [*(added if len(node.body) > 1 else added[1:]), *lines[last.lineno : end]]
    else:
        lines[end:end] = added


def _is_placeholder(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is Ellipsis
    )


def _characters(line: str, offset: int) -> int:
    return len(line.encode()[:offset].decode())  # ast counts bytes


def _unit(lines: Iterable[str]) -> str:
    """Return the indentation of one level: that of the first indented line."""
    for line in lines:
        text = line.lstrip(" \t")
        if text and line != text:
            return line[: len(line) - len(text)] if line[0] == " " else "\t"
    return "    "


def _definitions(cls: type, methods: Iterable[Method], names: _Names) -> Iterator[Sequence[str]]:
    """Yield the lines of each method; a tab at the beginning of a line is one level of indentation."""
    is_async = _is_async(cls)
    for method in methods:
        request, response = names.of_message(cls, method.request), names.of_message(cls, method.response)
        takes, returns = request, response
        if request and method.cardinality.client_streaming:
            takes = f"{names.of_iterator(is_async)}[{request}]"
        if response and method.cardinality.server_streaming:
            returns = f"{names.of_iterator(is_async)}[{response}]"
        parameter = "requests" if method.cardinality.client_streaming else "request"
        annotated = f"{parameter}: {takes}" if takes else parameter
        line = f"{'async def' if is_async else 'def'} {method.python_name}(self, {annotated})"
        body = ["\traise NotImplementedError"]
        if method.cardinality.server_streaming:
            # With a `yield` the function is a generator, as a stream needs.
            body.append(f"\tyield {response}()" if response else "\tyield")
        yield [f"{line} -> {returns}:" if returns else f"{line}:", *body]


def _is_async(cls: type) -> bool:
    """Return whether new methods are async: unless all that the class has are sync."""
    kinds = [
        found.kind[0]
        for base in generated_bases(cls)
        for method in vars(base)["__grpc_shim__"].service.methods
        if (found := find_implementation(cls, method.python_name)) is not None and not found.is_declared_only
    ]
    return any(kinds) or not kinds


@dataclass
class _Names:
    """Names for annotations in a module, and the imports that they need.

    Attributes:
        module: The module.
        tree: Its source.
        imports: The imports to add.
    """

    module: ModuleType
    tree: ast.Module
    imports: list[ImportedName] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known: dict[str, object] = dict(vars(self.module))
        self._has_lazy_annotations = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
            for node in self.tree.body
        )
        # Names that type checkers have, and the module has not.
        self._type_only = {
            alias.asname or alias.name: node.module
            for block in self.tree.body
            if isinstance(block, ast.If)
            for node in ast.walk(block)
            if isinstance(node, ast.ImportFrom) and node.module is not None
            for alias in node.names
        }

    def of_iterator(self, is_async: bool) -> str:
        """Return the name of ``AsyncIterator`` or ``Iterator``."""
        name = "AsyncIterator" if is_async else "Iterator"
        kinds = (getattr(collections.abc, name), getattr(typing, name))
        found = next((known for known, value in self._known.items() if any(value is kind for kind in kinds)), None)
        return found or self._imported("collections.abc", name, kinds[0])

    def of_message(self, cls: type, message: type[Message]) -> str:
        """Return the expression of a message class; ``""`` if none can be written."""
        outer, _, inner = message.__qualname__.partition(".")
        if not all(word.isidentifier() and not keyword.iskeyword(word) for word in message.__qualname__.split(".")):
            return ""
        home = _home(cls, outer, message)
        top = getattr(home, outer, None)
        if home is None or top is None:
            return ""
        for known, value in self._known.items():
            if value is message:
                return known
            if value is top:
                return f"{known}.{inner}"
        for known, value in self._known.items():
            if value is home:
                return f"{known}.{message.__qualname__}"
        if not all(word.isidentifier() and not keyword.iskeyword(word) for word in home.__name__.split(".")):
            return ""
        name = self._imported(home.__name__, outer, top)
        return f"{name}.{inner}" if inner else name

    def _imported(self, module: str, name: str, value: object) -> str:
        if self._has_lazy_annotations and self._type_only.get(name, "").rpartition(".")[2] == module.rpartition(".")[2]:
            return name
        free = name
        while free in self._known or hasattr(builtins, free):
            free += "_"
        self._known[free] = value
        self.imports.append(ImportedName(module, name, free))
        return free


def _home(cls: type, outer: str, message: type[Message]) -> ModuleType | None:
    """Return the generated module of a message class: the ``_pb2`` module that the module of a base imports."""
    bases = [sys.modules[base.__module__] for base in generated_bases(cls)]
    modules = [value for base in bases for value in vars(base).values() if isinstance(value, ModuleType)]
    for module in (*modules, sys.modules.get(message.__module__)):
        found = getattr(module, outer, None)
        for word in message.__qualname__.split(".")[1:]:
            found = getattr(found, word, None)
        if found is message:
            return module
    return None
