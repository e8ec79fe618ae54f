"""mypy with the cache that ``make check`` fills: what it knows of Ray and gRPC is not worked out again.

mypy keeps what it knows of a module as long as the options are the same, so each run has those of ``[tool.mypy]`` in
``pyproject.toml``. A file that wants another one says so itself: https://mypy.readthedocs.io/en/stable/inline_config.html
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.cluster import ROOT

CACHE = ROOT / ".mypy_cache"


@contextlib.contextmanager
def mypy_cache() -> Iterator[dict[str, str]]:
    """Keep other processes from the cache in the block: a cache has one writer.

    Yields:
        The environment of a mypy that uses it.
    """
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / "tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield {"MYPY_CACHE_DIR": str(CACHE)}


def _skipped_modules() -> Path:
    """Return a file that lets mypy skip what ``pyproject.toml`` skips: the cache has no part of it."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    (skipped,) = options["overrides"]
    file = CACHE / "tests.ini"
    file.write_text(f"[mypy]\n[mypy-{','.join(skipped['module'])}]\nfollow_imports = {skipped['follow_imports']}\n")
    return file


def mypy(
    files: Sequence[Path], path: Sequence[Path], *arguments: str, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run mypy on files.

    Args:
        files: The files to check.
        path: Folders where it finds what these import.
        *arguments: Other arguments.
        cwd: The folder to run in.
    """
    with mypy_cache() as cache:
        return subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--strict", f"--config-file={_skipped_modules()}"),
                *("--no-warn-unused-configs", "--python-version=3.11", *arguments, *map(str, files)),
            ],
            cwd=cwd,
            env={**cache, "PATH": "/usr/bin:/bin", "MYPYPATH": os.pathsep.join(map(str, path))},
            capture_output=True,
            text=True,
            check=False,
        )
