from __future__ import annotations

from sdk.errors import Problem


def check(cls: type) -> list[Problem]:
    return []
