"""Fixtures of the integration tests, which deploy modules of this folder, of the guide's, and generated code."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import generate, share_with_replicas

HERE = Path(__file__).parent
share_with_replicas(
    HERE.parents[1] / "examples" / "guide", generate(HERE / "protos"), generate(HERE.parent / "validation" / "protos")
)
