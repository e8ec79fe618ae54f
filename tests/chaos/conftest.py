"""What is deployed here is imported from this folder, and from generated code."""

from __future__ import annotations

from pathlib import Path

from cluster import generate, share_with_replicas

HERE = Path(__file__).parent
share_with_replicas(HERE, generate(HERE.parent / "integration" / "protos"))
