#!/usr/bin/env bash
# The main thread of an idle Ray worker wakes a hundred times a second, which takes a quarter of a percent of a core.
#
# Versions: ray 2.60.0. Valid input: a local Ray without a dashboard and without metrics, and eight actors with one method
# each, which were called once.
# Expected: a worker that has nothing to do sleeps until a call comes.
# Seen: 100 voluntary context switches a second in the main thread of each worker, and 0.26 to 0.28 % of a core with all
# its threads: four hundred idle workers take a core. The memory monitor, event statistics, reports of tasks and the
# periods of reports, set to less or none, do not change it.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray==2.60.0'
cat > "$folder/idle.py" <<'PYTHON'
import os
import time
from pathlib import Path

import ray

SECONDS = 10


@ray.remote(num_cpus=0)
class Idle:
    def pid(self):
        return os.getpid()


def switches(pid):
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config={"enable_metrics_collection": False})
actors = [Idle.remote() for _ in range(8)]
pids = ray.get([actor.pid.remote() for actor in actors])
time.sleep(3)  # what follows a start ends
woken, used = sum(map(switches, pids)), sum(map(cpu_seconds, pids))
time.sleep(SECONDS)  # what is measured: nothing is called
a_second = (sum(map(switches, pids)) - woken) / SECONDS / len(pids)
share = (sum(map(cpu_seconds, pids)) - used) / SECONDS / len(pids)
print(f"each idle worker: {a_second:.0f} context switches of its main thread a second, {share:.2%} of a core")
raise SystemExit(0 if a_second > 50 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/idle.py" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
