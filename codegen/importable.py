"""Warnings about generated modules that Python can't import, and about imports that will fail."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

# protoc writes one import on a line: `from a.b import c_pb2 as a_dot_b_dot_c__pb2`, `import c_pb2 as c__pb2`.
_IMPORT = re.compile(rb"^(?:from (?P<package>[^\s.]\S*) )?import (?P<module>\w+_pb2)\b", re.MULTILINE)


def find(module: str) -> ModuleSpec | None:
    """Return the spec of a module, and import none of its parents."""
    specs = list(_specs(module))
    return specs[-1] if specs and specs[-1].name == module else None


def warnings(files: Mapping[str, bytes], known: Collection[str], out: Path, package: str) -> Iterator[str]:
    """Yield a warning for each module whose import will fail.

    Args:
        files: The generated files by their paths below the output folder.
        known: Paths of all files that are in the output folder after this run.
        out: The output folder.
        package: Dotted name of the package that the output folder is; ``""`` for a folder on ``sys.path``.
    """
    if not package:
        yield from _hidden(files, out)
    importers: dict[str, list[str]] = {}
    for path in files:
        for match in _IMPORT.finditer(files[path]) if path.endswith("_pb2.py") else ():
            importers.setdefault(b".".join(filter(None, (match["package"], match["module"]))).decode(), []).append(path)
    for module, paths in importers.items():
        place = module.replace(".", "/") + ".py"
        if place not in known and not (out / place).exists() and find(module) is None:
            more = len(paths) - 1
            subject = (
                f"{out / paths[0]} and {more} more: warning: they import"
                if more
                else (f"{out / paths[0]}: warning: it imports")
            )
            yield (
                f"{subject} {module}, which is neither generated nor installed; give its proto to `sdk codegen`, or "
                "install the package that has it"
            )


def _hidden(files: Mapping[str, bytes], out: Path) -> Iterator[str]:
    """Yield a warning for each folder that another package hides: Python searches a package with a loader only there.

    See https://docs.python.org/3/reference/import.html#namespace-packages. Generated folders have no ``__init__.py``.
    """
    folders = {path.rpartition("/")[0] for path in files if path.endswith("_pb2.py") and "/" in path}
    hiding = {spec.name: spec for folder in folders if (spec := _regular_package(folder.replace("/", ".")))}
    for name, spec in sorted(hiding.items()):
        folder = name.replace(".", "/")
        modules = [p[:-3].replace("/", ".") for p in files if p.startswith(f"{folder}/") and p.endswith("_pb2.py")]
        lost = [module for module in modules if find(module) is None]
        if lost and not _is_below(spec, out):
            is_standard = name.partition(".")[0] in sys.stdlib_module_names
            yield (
                f"{out / folder}: warning: {'the standard library' if is_standard else 'an installed package'} has the "
                f"module {name}, so that Python can't import {lost[0]}"
                f"{f' and {len(lost) - 1} more' if lost[1:] else ''}; give --package"
            )


def _regular_package(module: str) -> ModuleSpec | None:
    """Return the first module in a dotted name that exists and is not a namespace package."""
    return next((spec for spec in _specs(module) if spec.origin is not None), None)


def _specs(module: str) -> Iterator[ModuleSpec]:
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # `__main__` has no spec
        return
    name = top
    while spec is not None:
        yield spec
        if not parts or spec.submodule_search_locations is None:
            return
        name = f"{name}.{parts.pop(0)}"
        spec = _in_folders(name, spec.submodule_search_locations)


def _in_folders(name: str, folders: Iterable[str]) -> ModuleSpec | None:
    """Return the spec of a module in some folders; unlike ``PathFinder``, without its parent in ``sys.modules``."""
    portions: list[str] = []
    for folder in folders:
        finder: Any = pkgutil.get_importer(folder)
        spec: ModuleSpec | None = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec is not None and spec.submodule_search_locations) or ()
    if not portions:
        return None
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = portions
    return package


def _is_below(spec: ModuleSpec, folder: Path) -> bool:
    return spec.origin is not None and Path(spec.origin).is_relative_to(folder.resolve())
