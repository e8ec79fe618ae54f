"""Fixtures of the integration tests, which deploy modules of this folder, of the guide's, and generated code."""

from __future__ import annotations

from pathlib import Path

import google.api

from tests.support.cluster import generate, share_with_replicas

HERE = Path(__file__).parent
CATALOG = HERE / "catalog_protos"
INSTALLED_PROTOS = Path(google.api.__path__[0]).parents[1]
share_with_replicas(
    HERE.parents[1] / "examples" / "guide",
    generate(HERE / "protos"),
    generate(HERE.parent / "validation" / "protos"),
    generate(CATALOG / "first", INSTALLED_PROTOS),
)
