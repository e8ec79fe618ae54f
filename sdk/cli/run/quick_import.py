"""Import of a module that is slow to import, without the garbage collector."""

from __future__ import annotations

import gc
import importlib


def import_quickly(module: str) -> None:
    """Import a module without the garbage collector, and keep what that makes out of every later collection.

    Imports keep what they make. The collector would visit it again and again, for a fifth of the CPU time of an import
    of Ray Serve.

    Args:
        module: Its name.
    """
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()
