"""A server with every kind of credential, shared by the tests of this folder, and clients for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import google.api
import pytest

from tests.support.cluster import generate

if TYPE_CHECKING:
    from tests.security.world import World

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "greeter"))
INSTALLED_PROTOS = Path(google.api.__path__[0]).parents[1]
sys.path.insert(0, str(generate(Path(__file__).parent / "protos", INSTALLED_PROTOS)))


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    """Serve the applications of ``world.py``."""
    from tests.security.world import serving

    with serving() as it:
        yield it
