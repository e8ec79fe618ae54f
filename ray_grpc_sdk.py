"""Starts the commands of the distribution, outside its packages: another folder of their name may hide them.

A folder on ``PYTHONPATH`` comes before the installed packages.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parent


def sdk() -> None:
    """Run the command ``sdk``."""
    _refuse_hidden()
    # What imports make stays: 200,000 objects with Ray Serve, which Python's own thresholds visit in 300 collections.
    gc.set_threshold(300_000)
    from sdk.cli.main import main

    # The interpreter collects garbage when it ends, which takes a fifth of what `sdk check` takes.
    atexit.register(gc.freeze)
    main()


def protoc_gen_sdk() -> None:
    """Run the plugin for protoc."""
    _refuse_hidden()
    from codegen.plugin import main

    main()


def _refuse_hidden() -> None:
    """Exit with one line if another module hides one of our packages."""
    for name in ("sdk", "codegen"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None
        if origin is None or origin == _HOME / name / "__init__.py":
            continue
        is_package = origin.stem == "__init__"
        shown, folder = (f"{origin.parent}/", origin.parents[1]) if is_package else (origin, origin.parent)
        print(
            f"error: {shown} hides the package {name!r} of ray-grpc-sdk: rename it, or remove {folder} from PYTHONPATH",
            file=sys.stderr,
        )
        raise SystemExit(2)
