"""Options in ``[tool.sdk.codegen]`` of ``pyproject.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen.errors import CodegenError
from sdk._error_text import os_reason

FILE = "pyproject.toml"
TABLE = "tool.sdk.codegen"

# The type of each key, in the words of a message.
_STRING, _STRINGS = "a string", "a list of strings"
_KEYS: Mapping[str, str] = {
    "protos": _STRINGS,
    "proto-path": _STRINGS,
    "exclude": _STRINGS,
    "out": _STRING,
    "package": _STRING,
}


@dataclass(frozen=True, slots=True)
class Config:
    """Options of a ``pyproject.toml``. Paths are relative to the current folder, as the command needs them.

    Attributes:
        file: The ``pyproject.toml``; None if no file has options.
        protos: Proto files and folders of them.
        proto_path: Folders to look for imported protos in.
        exclude: Patterns of protos to leave out.
        out: The output folder.
        package: The Python package that the output folder is.
    """

    file: Path | None = None
    protos: tuple[Path, ...] = ()
    proto_path: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    out: Path | None = None
    package: str = ""


def load(folder: Path) -> Config:
    """Return the options of the nearest ``pyproject.toml`` that has some, from a folder upwards.

    Args:
        folder: The folder to start from, usually the current one. Returned paths are relative to it.

    Raises:
        CodegenError: A file on the way is not TOML, or a key is unknown or has a value of the wrong type.
    """
    here = folder.resolve()
    for depth, parent in enumerate((here, *here.parents)):
        file = parent / FILE
        # As seen from `folder`: `pyproject.toml`, `../pyproject.toml`.
        shown = Path(*[".."] * depth, FILE)
        if file.is_file():
            table = _table(file, shown)
            if table is not None:
                return _config(table, shown)
    return Config()


def _table(file: Path, shown: Path) -> object:
    try:
        value: object = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CodegenError(f"{shown} is not TOML: {error}", exit_code=2) from error
    except OSError as error:
        raise CodegenError(f"can't read {shown}: {os_reason(error)}", exit_code=2) from error
    for key in TABLE.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def _config(table: object, file: Path) -> Config:
    if not isinstance(table, dict):
        raise CodegenError(f"{file}: {TABLE} must be a table", exit_code=2)
    problems = []
    for key, value in table.items():
        if key not in _KEYS:
            problems.append(f"{file}: unknown key {key!r} in [{TABLE}]; known are {', '.join(_KEYS)}")
        elif not _fits(value, _KEYS[key]):
            problems.append(f"{file}: {key!r} in [{TABLE}] must be {_KEYS[key]}, not {value!r}")
    if problems:
        raise CodegenError("\n".join(problems), exit_code=2)
    given: dict[str, Any] = table

    def paths(key: str) -> tuple[Path, ...]:
        return tuple(file.parent / path for path in given.get(key, ()))

    return Config(
        file=file,
        protos=paths("protos"),
        proto_path=paths("proto-path"),
        exclude=tuple(given.get("exclude", ())),
        out=file.parent / given["out"] if "out" in given else None,
        package=given.get("package", ""),
    )


def _fits(value: object, wanted: str) -> bool:
    if wanted == _STRING:
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
