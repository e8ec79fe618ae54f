"""Fixtures of the chaos tests, which deploy a module of this folder with generated code."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import generate, share_with_replicas

share_with_replicas(generate(Path(__file__).parents[1] / "integration" / "protos"))
