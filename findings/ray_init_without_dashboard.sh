#!/usr/bin/env bash
# ray.init(include_dashboard=False) still starts dashboard.py: without its web page, but as a separate process.
#
# Version: ray 2.60.0. Valid input: a local cluster with one CPU, as test suites start it.
# Expected by the option's name: no dashboard process.
# Seen: a process `ray/dashboard/dashboard.py` runs, next to the monitor and the log monitor, and answers no HTTP at
# context.dashboard_url, which is empty. On a busy 2-core machine it took about 2 s of CPU time at each start.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[default]==2.60.0' psutil
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" - <<'PYTHON'
import sys

import psutil
import ray

context = ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
try:
    children = psutil.Process().children(recursive=True)
    dashboards = [each for each in children if any(part.endswith("dashboard/dashboard.py") for part in each.cmdline())]
    print(f"ray {ray.__version__}: dashboard_url={context.dashboard_url!r}, dashboard processes: {len(dashboards)}")
finally:
    ray.shutdown()
sys.exit(0 if dashboards and not context.dashboard_url else 1)
PYTHON
