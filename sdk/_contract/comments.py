"""The protos' comments on services and RPCs, which generated code has as docstrings; ``_pb2`` modules have none."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk.service import Service

# What generated bases say where the proto says nothing, and behind its comment on what is deprecated.
_DEFAULTS = ("Base class for implementations of `", "Handles calls to `/")
_DEPRECATED = "Deprecated."


def comments_of(modules: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return line and comment of each service and RPC that has one, by full name.

    Args:
        modules: Names of generated modules, which are imported. A file has all of its services in one.
    """
    found: dict[str, tuple[int, str]] = {}
    for module in modules:
        for name, line, doc in _docstrings(vars(sys.modules[module]).values()):
            if line and (text := _comment(doc)):
                found[name] = line, text
    return found


def _docstrings(values: Iterable[object]) -> Iterator[tuple[str, int, str | None]]:
    for base in values:
        shim = vars(base).get("__grpc_shim__") if isinstance(base, type) else None
        if shim is None:
            continue
        service: Service = shim.service
        yield service.full_name, service.line, base.__doc__
        for method in service.methods:
            handler = vars(base).get(method.python_name)
            yield f"{service.full_name}.{method.name}", method.line, getattr(handler, "__doc__", None)


def _comment(doc: str | None) -> str:
    text = inspect.cleandoc(doc or "").removesuffix(_DEPRECATED).rstrip()
    return "" if text.startswith(_DEFAULTS) else text
