#!/usr/bin/env bash
# Ray Serve pickles the code of its default request router into each deployment that is declared, though no option of the
# deployment names a router.
#
# Versions: ray[serve] 2.60.0. Valid input: `@serve.deployment` without options.
# Expected: the configuration of a deployment with the default router names its class; Ray has it on every node.
# Seen: `RequestRouterConfig()` registers the router's module to be pickled by value and pickles the class: over 100 KB
# in the configuration of each deployment, and some milliseconds of CPU time for each `@serve.deployment`. So importing a
# module with many deployments takes time, and so does every copy of such a configuration that is made without the bytes.
# `Deployment.options(...)` keeps the bytes, and takes less than a tenth of that time.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[serve]==2.60.0'
cd "$folder"
cat > show.py <<'PYTHON'
import pickletools
import time

from ray import serve
from ray.serve.config import RequestRouterConfig


class Greeter:
    pass


def cpu_ms(act, times=20):
    began = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - began) / times * 1000


RequestRouterConfig()
kept = RequestRouterConfig().get_serialized_request_router_cls()
has_code = any(argument == "CodeType" for _, argument, _ in pickletools.genops(kept))
declared = serve.deployment(Greeter)
declare, copy = cpu_ms(lambda: serve.deployment(Greeter)), cpu_ms(lambda: declared.options(num_replicas=2))
print(f"{len(kept)} bytes of the default router in each deployment; has code: {has_code}")
print(f"declare {declare:.2f} ms, options {copy:.2f} ms, {'more' if declare > 5 * copy else 'less'} than 5 times")
PYTHON
seen=$(venv/bin/python show.py 2>/dev/null)
printf '%s\n' "$seen"
[[ $seen == *"has code: True"*", more than 5 times" ]]
[ "${seen%% *}" -gt 50000 ]
