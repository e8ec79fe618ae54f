"""`make chaos`: change, break and kill everything under constant load, and print the clients' results.

Exits with 1 if a promise was not kept. See docs/operations/operation.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from pathlib import Path

from tests.support.cluster import generate, set_import_path, share_with_replicas
from tests.support.ports import free_port

HERE = Path(__file__).parent
# Ray starts processes while the load's threads call.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

_LONGEST_S = 600.0


def main() -> int:
    """Run the program, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few events of each kind")
    parser.add_argument("--replacements", type=int, default=100, help="replicas to replace (100)")
    parser.add_argument("--only", default="", metavar="REGEX", help="only events whose name matches")
    arguments = parser.parse_args()
    # End the program even if something hangs.
    watchdog = threading.Timer(_LONGEST_S, lambda: os._exit(_give_up()))
    watchdog.daemon = True
    watchdog.start()
    share_with_replicas(generate(HERE.parent / "integration" / "protos"))
    set_import_path()

    import ray

    import sdk

    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False)
    port = free_port()
    sdk.start(sdk.GrpcOptions(port=port))
    began = time.monotonic()
    try:
        is_kept, node_id, raylet = _run(f"127.0.0.1:{port}", arguments)
    finally:
        sdk.shutdown()
    from tests.support.processes import workers

    deadline = time.monotonic() + 10
    while left := [*workers(raylet, "ray::Proxy"), *workers(raylet, "ray::ServeReplica:"), *_existing(node_id)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    ray.shutdown()
    print(f"\n{time.monotonic() - began:.0f} s; left behind: {left or 'nothing'}")
    return 0 if is_kept and not left else 1


def _run(address: str, arguments: argparse.Namespace) -> tuple[bool, str, int]:
    from tests.chaos.constant_load import COMPOSED, COMPOSED_BOTH, GRPC_WEB, JSON, Load
    from tests.chaos.events import happen, long_form, short_form
    from tests.chaos.verdict import render
    from tests.chaos.world import World

    world = World("chaos", replicas=2)
    rows = []
    with Load(address, world.application, world.caller) as load:
        time.sleep(2)
        for event in short_form() if arguments.short else long_form(arguments.replacements):
            if not re.search(arguments.only, event.name):
                continue
            rows.append(happen(event, world, load))
            print(render(rows[-1:]).split("\n", 1)[len(rows) > 1] if len(rows) > 1 else render(rows), flush=True)
    kept = sum(row.is_kept for row in rows)
    calls = len(load.calls)
    print(
        f"\n{kept} of {len(rows)} promises kept; {calls} calls, {sum(row.failed for row in rows)} failed; "
        f"{world.replaced} replicas replaced"
    )
    for kind in COMPOSED, COMPOSED_BOTH, GRPC_WEB, JSON:
        mine = [call for call in load.calls if call.kind == kind]
        print(f"{kind}: {len(mine)} calls, {sum(call.code != 'OK' for call in mine)} failed")
    return kept == len(rows), world.node_id, world.raylet


def _existing(node_id: str) -> list[str]:
    from tests.support.processes import ingress_folder

    return [str(folder) for folder in (ingress_folder(node_id),) if folder.exists()]


def _give_up() -> int:
    print(f"not done after {_LONGEST_S:g} s", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
