"""Cache of an output folder: a digest of the inputs of the last run, so that an unchanged run generates nothing.

It is ``.sdk_codegen_cache`` in the output folder and, like the caches of mypy and ruff, has a ``.gitignore`` that makes
Git ignore it. Without it, or if it is damaged, the next run generates everything and writes only what differs. You may
remove it at any time.

The caller holds the lock of the output folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

NAME = ".sdk_codegen_cache"

_KEY = "key"
_MARKS = {
    ".gitignore": "# Created by `sdk codegen`.\n*\n",
    # https://bford.info/cachedir/: backups skip the folder.
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of `sdk codegen`.\n",
}


def key(inputs: str, hashes: Mapping[str, str]) -> str:
    """Return the key of a run.

    The outputs are part of it: after a checkout of different generated files with the protos of the last run, the
    manifest and the files agree, and the inputs are those of the last run, but the files were made from other inputs.

    Args:
        inputs: Digest of everything that the files are made from, as ``Protoc.digest`` returns it.
        hashes: Hash of each file by its path below the output folder.
    """
    lines = [inputs, *(f"{path} {hash_}" for path, hash_ in sorted(hashes.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load(out: Path) -> str:
    """Return the key of the last run in an output folder; ``""`` if it is unknown."""
    try:
        return (out / NAME / _KEY).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def save(out: Path, new: str) -> None:
    """Store the key of a run. A process that is killed meanwhile leaves the old key or the new one."""
    folder = out / NAME
    folder.mkdir(exist_ok=True)
    for name, text in _MARKS.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    staged = folder / f"{_KEY}.new"
    staged.write_text(new, encoding="utf-8")
    os.replace(staged, folder / _KEY)
