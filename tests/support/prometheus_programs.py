"""Prometheus's programs: installed, or put next to Python by ``.ci/prometheus.sh``."""

from __future__ import annotations

import os
import shutil
import sys

import pytest


def prometheus_program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``; skip the test where it is missing.

    Args:
        name: Name of the program.
    """
    found = shutil.which(name) or shutil.which(name, path=os.path.join(sys.prefix, "bin"))
    if found is None:
        pytest.skip(f"{name} is missing: .ci/prometheus.sh gets it from Debian's package prometheus")
    return found
