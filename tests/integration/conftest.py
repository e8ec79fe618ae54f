"""What the integration tests deploy is imported from this folder and from the guide's."""

from __future__ import annotations

from pathlib import Path

from cluster import share_with_replicas

HERE = Path(__file__).parent
share_with_replicas(HERE, HERE.parents[1] / "examples" / "guide")
