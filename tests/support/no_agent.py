"""A program in the place of an agent of Ray's: it listens nowhere, and ends with the raylet that started it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

(folder,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--session-dir="))
is_of_runtime_env = any(word.startswith("--runtime-env-agent-port=") for word in sys.argv)
of_dashboard = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
for port in ("runtime_env_agent_port",) if is_of_runtime_env else of_dashboard:
    file = Path(folder, f"{port}_{os.environ['RAY_NODE_ID']}")
    file.with_suffix(".unfinished").write_text("-1")
    file.with_suffix(".unfinished").rename(file)  # the raylet and the driver read it as soon as it exists
sys.stdin.read()  # the raylet has the other end
