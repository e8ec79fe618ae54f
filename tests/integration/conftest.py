"""What the integration tests deploy is imported from the guide's folder and from generated code too."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import generate, share_with_replicas

HERE = Path(__file__).parent
share_with_replicas(HERE.parents[1] / "examples" / "guide", generate(HERE / "protos"))
