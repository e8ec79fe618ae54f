"""A Ray without the processes that no test needs, and the environment of programs that start one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

#: Python imports its `sitecustomize` at the start of each process.
PYTHON_START = Path(__file__).with_name("python_start")
_NO_AGENT = Path(__file__).with_name("no_agent.py")


def leave_out_processes(
    *, has_serve_api: bool = False, has_metrics: bool = False, has_runtime_env: bool = False
) -> None:
    """Let Ray start no more than it needs to serve, in this process and from now on.

    One process has the server of Ray's client. One passes on what workers print, for 2 % of a core. One scales clusters
    that have an autoscaler. Without a dashboard, one reports usage, if that is wanted. The start of each takes 0.5
    CPU-seconds or more. The agent of a node takes 1.0, and more for each report of metrics, and that of runtime
    environments 0.55: a program of 0.02 takes the place of each.

    Args:
        has_serve_api: Whether Ray Serve's REST API is needed, which is a part of the dashboard.
        has_metrics: Whether Ray's metrics are needed, which the agent exports.
        has_runtime_env: Whether a worker has a `runtime_env`. Without its agent, such a worker never starts.
    """
    from ray._private import services
    from ray._private.node import Node

    Node.start_ray_client_server = lambda _: None  # type: ignore[method-assign]
    Node.start_log_monitor = lambda _: None  # type: ignore[method-assign]
    Node.start_monitor = lambda _: None  # type: ignore[method-assign]
    if not has_serve_api:
        Node.start_api_server = lambda *_, **__: None  # type: ignore[method-assign]
    start = services.start_ray_process
    agents = [] if has_metrics else ["dashboard/agent.py"]
    agents += [] if has_runtime_env else ["_private/runtime_env/agent/main.py"]

    def start_process(command: list[str], kind: str, *rest: Any, **more: Any) -> Any:
        if kind == "dashboard":
            command = [*command, "--modules-to-load=ServeHead"]
        if kind == "raylet":
            for agent in agents:
                command = [word.replace(os.path.join(services.RAY_PATH, agent), str(_NO_AGENT)) for word in command]
        return start(command, kind, *rest, **more)

    services.start_ray_process = start_process


def program_environment(*folders: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a program that imports what this process can import.

    Args:
        *folders: More folders to import from.
        **variables: More variables.
    """
    path = os.pathsep.join([*map(str, folders), *sys.path])
    return {**os.environ, **variables, "PYTHONPATH": path}
