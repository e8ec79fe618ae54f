"""Import statements of a generated module, sorted as by ``ruff check --select I``."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from codegen import formatting

if TYPE_CHECKING:
    from codegen.module_names import Import


# The modules of another distribution may have type stubs or not.
_UNTYPED = "  # type: ignore[import-untyped, unused-ignore]"


def sections(imports: Iterable[Import], first_party: Collection[str]) -> list[str]:
    """Return import statements in sections: standard library, third party, first party, relative.

    Args:
        imports: What to import.
        first_party: Top-level names of the modules in the same folder on ``sys.path``.
    """
    found: dict[int, dict[str, list[Import]]] = {}
    for each in imports:
        # A plain `import` has no module; it comes before every `from`.
        section = found.setdefault(_section(each.module or each.name, first_party), {})
        section.setdefault(each.module, []).append(each)
    return [
        "\n".join(
            statement
            for module in sorted(modules, key=_by_module)
            for statement in _statements(module, sorted(modules[module], key=_by_name))
        )
        for _, modules in sorted(found.items())
    ]


def _statements(module: str, imports: list[Import]) -> list[str]:
    if not module:
        return [f"import {_as(each)}" + ("" if each.typed else _UNTYPED) for each in imports]
    # Each renamed import has a separate statement. Statements are sorted by their first names.
    statements = [[each] for each in imports if each.name != each.alias]
    if plain := [each for each in imports if each.name == each.alias]:
        statements.append(plain)
    statements.sort(key=lambda names: _by_name(names[0]))
    comment = "" if all(each.typed for each in imports) else _UNTYPED
    return [formatting.imported(module, [_as(each) for each in names], comment) for names in statements]


def _as(each: Import) -> str:
    return each.name if each.name == each.alias else f"{each.name} as {each.alias}"


def _section(module: str, first_party: Collection[str]) -> int:
    if module.startswith("."):
        return 3
    top = module.partition(".")[0]
    if top in first_party:
        return 2
    return 0 if top in sys.stdlib_module_names else 1


def _by_module(module: str) -> tuple[bool, int, list[tuple[str, int]], str]:
    name = module.lstrip(".")
    return bool(module), len(name) - len(module), _natural(name.lower()), name


def _by_name(each: Import) -> tuple[int, list[tuple[str, int]], str]:
    return by_kind(each.name)


def by_kind(name: str) -> tuple[int, list[tuple[str, int]], str]:
    """Return the sort key of a name by its case: constants, then classes, then the rest.

    Example:
        >>> sorted(["greet", "GreeterBase", "GREETER"], key=by_kind)
        ['GREETER', 'GreeterBase', 'greet']
    """
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2
    return kind, _natural(name.lower()), name


def _natural(name: str) -> list[tuple[str, int]]:
    """Return the natural sort key of a name: ``v2`` before ``v10``."""
    return [("0", int(run)) if run.isdecimal() else (run, 0) for run in re.findall(r"\d+|\D", name)]
