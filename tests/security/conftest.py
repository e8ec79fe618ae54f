"""A server with every kind of credential, shared by the tests of one module, and clients for it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "greeter"))
