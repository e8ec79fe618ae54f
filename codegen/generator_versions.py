"""Versions of the generators that wrote generated code, as it names them: another version writes other bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: What a file says about its generator: the distribution to install, and where the version is.
_MARKS = (
    ("grpcio-tools", re.compile(rb"^GRPC_GENERATED_VERSION = '([^']+)'$", re.MULTILINE)),
    ("protobuf", re.compile(rb"^# Protobuf Python Version: (\S+)$", re.MULTILINE)),
)


def other_versions(old: Iterable[bytes], new: Iterable[bytes]) -> Mapping[str, tuple[str, str]]:
    """Return the generators of which another version wrote the old files: its version, and that of the new files.

    Args:
        old: Contents of files.
        new: Contents of the same files as they are generated now.

    Example:
        >>> other_versions([b"GRPC_GENERATED_VERSION = '1.84.0'"], [b"GRPC_GENERATED_VERSION = '1.85.1'"])
        {'grpcio-tools': ('1.84.0', '1.85.1')}
    """
    before, after = _versions(old), _versions(new)
    return {name: (before[name], after[name]) for name in before if name in after and before[name] != after[name]}


def _versions(contents: Iterable[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for content in contents:
        for name, mark in _MARKS:
            match = mark.search(content)
            if match is not None:
                found.setdefault(name, match[1].decode())
    return found
