"""What the interop tests deploy: the services of this folder, on code that the SDK generates from its protos."""

from __future__ import annotations

from pathlib import Path

from cluster import generate, share_with_replicas

HERE = Path(__file__).parent
share_with_replicas(HERE, generate(HERE / "protos"))
