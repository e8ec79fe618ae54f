#!/usr/bin/env bash
# A replica of Ray Serve imports the modules of another program, though its runtime_env names the folder of its own.
#
# Versions: ray[serve] 2.60.0. Valid input: two programs on one Ray cluster, each in its folder, with a module `names` in
# both. The first program starts Ray Serve; the second one names its folder in a runtime_env.
# Expected: the replica of the second program imports its own `names`.
# Seen: with PYTHONPATH in `env_vars` it imports that of the first program, without an error or a warning. Replicas are
# actors of Ray Serve's controller, so they belong to the job of the program that started Ray Serve, and a worker puts the
# folders of its job before those of PYTHONPATH.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
program=
trap 'exec {to}>&- || true; wait $program || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[serve]==2.60.0'
mkdir "$folder/first" "$folder/second"
for name in first second; do
    echo "NAME = '$name'" > "$folder/$name/names.py"
done
cat > "$folder/program.py" <<'PYTHON'
import os
import sys

import ray
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Greeter:
    def name(self):
        import names

        return names.NAME


name, address = sys.argv[1:]
if address == "local":
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
else:
    ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}})
handle = serve.run(Greeter.bind(), name=name, route_prefix=None)
print(ray.get_runtime_context().gcs_address, handle.name.remote().result(), flush=True)
if address == "local":
    sys.stdin.read()
PYTHON
mkfifo "$folder/in" "$folder/out"
(cd "$folder/first" && exec ../venv/bin/python ../program.py first local < ../in > ../out 2> ../first.log) &
program=$!
exec {to}> "$folder/in" {from}< "$folder/out"
read -r -t 300 address own <&"$from"
read -r _ other < <(cd "$folder/second" && ../venv/bin/python ../program.py second "$address" 2> ../second.log)
echo "the replica of the first program imports the module of the $own, that of the second one that of the $other"
[ "$own $other" = "first first" ]
