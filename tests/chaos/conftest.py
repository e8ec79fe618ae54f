"""Fixtures of the chaos tests, which deploy a module of this folder with generated code."""

from __future__ import annotations

from pathlib import Path

from cluster import generate, share_with_replicas

HERE = Path(__file__).parent
share_with_replicas(HERE, generate(HERE.parent / "integration" / "protos"))
