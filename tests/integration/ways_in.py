"""A program: a separate cluster, on which nobody calls ``sdk.start``. Prints its findings, one JSON object per line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import ray
from click.testing import CliRunner
from orders_pb2 import Divisor, Order
from orders_sdk import OrdersSyncClient
from probe_pb2 import Ask
from ray.serve.scripts import deploy as serve_deploy
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from sdk._ingress.cluster import find_controller
from sdk._serve.ingress_bootstrap import has_serve
from sdk._serve.ray_connection import log_folder
from tests.integration.prober import METHODS, Prober
from tests.integration.typed_handle_calls import outcomes
from tests.support.deadlines import happens, wait_until
from tests.support.ports import free_port
from tests.support.small_ray import leave_out_processes
from tests.validation.refusals import BAD, GOOD, end_of

BIN = Path(sys.executable).parent
PORT, SERVES_OWN = free_port(), free_port()
AUTOSCALING = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_ongoing_requests": 2,
    "upscale_delay_s": 0,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 1,
}


def application(name: str, target: str = "build", **more: Any) -> dict[str, Any]:
    args = {"args": {"salute": name}} if target == "build" else {}
    return {"name": name, "import_path": f"tests.integration.ways_app:{target}", "route_prefix": None, **args, **more}


def config(*applications: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "proxy_location": "Disabled",
        "grpc_options": {"port": PORT, "request_timeout_s": 7},
        "applications": list(applications),
        **more,
    }


def put(dashboard: str, body: dict[str, Any] | None) -> None:
    """Deploy through the REST API, as KubeRay does; None shuts Ray Serve down."""
    request = urllib.request.Request(
        f"{dashboard}/api/serve/applications/",
        method="DELETE" if body is None else "PUT",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"},
    )
    urllib.request.urlopen(request, timeout=60).close()


def call(name: str, milliseconds: int = 0) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        metadata = (("application", name),)
        message = UserDefinedMessage(name="you", num=milliseconds)
        return str(UserDefinedServiceStub(channel).__call__(message, metadata=metadata, timeout=10).greeting)


def answers(name: str, greeting: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return call(name) == greeting
        except grpc.RpcError:
            return False

    return ask


def behind_serves_own_proxy() -> list[list[Any]]:
    """Return what calls through Ray Serve's own gRPC proxy end with."""
    with grpc.insecure_channel(f"127.0.0.1:{SERVES_OWN}") as channel:
        prober = Prober(channel, "AsyncProbe", "typed")
        wait_until(lambda: prober.ask("Unary", Ask(), timeout=20).code is grpc.StatusCode.OK)
        found: list[list[Any]] = []
        for method in METHODS:
            ended = prober.ask(method, Ask(number=2), timeout=20, metadata=(("request_id", "mine"),))
            numbers = [reply.number for reply in ended.messages]
            found.append([method, ended.code.name, ended.trailing["request_id"], numbers])
        ended = prober.ask("Unary", Ask(act="set code"), timeout=20)
        return [*found, [ended.code.name, ended.trailing["num"], ended.details]]


def messages_checked_behind_serves_own_proxy() -> list[Any]:
    """Return what calls end with that keep the rules of their messages, and calls that break them."""
    with grpc.insecure_channel(f"127.0.0.1:{SERVES_OWN}") as channel:
        client = OrdersSyncClient(channel, application="typed")
        wait_until(lambda: end_of(lambda: client.Place(GOOD, timeout=20)).code == "OK")
        calls = [
            *(partial(each, GOOD) for each in (client.Place, client.Follow)),
            *(partial(each, [GOOD]) for each in (client.Collect, client.Exchange)),
            *(partial(each, BAD) for each in (client.Place, client.Follow)),
            *(partial(each, [GOOD, BAD]) for each in (client.Collect, client.Exchange)),
            partial(client.Place, Order(id="empty", count=1)),
            partial(client.Divide, Divisor()),
        ]
        return [end_of(partial(call, timeout=20)) for call in calls]


def handles_behind_serves_own_proxy() -> list[Any]:
    """Return what calls end with whose handler calls others through typed handles, and that of a stream of requests."""
    with grpc.insecure_channel(f"127.0.0.1:{SERVES_OWN}") as channel:
        stub = UserDefinedServiceStub(channel)

        metadata = (("application", "typed"),)
        asked = UserDefinedMessage(name="transport")

        def transport() -> str:
            try:
                return str(stub.__call__(asked, metadata=metadata, timeout=20).greeting)
            except grpc.RpcError:
                return ""

        wait_until(lambda: transport() != "")
        both = UserDefinedMessage(origin="both, caught", num=1)
        stream = [reply.greeting for reply in stub.Streaming(both, metadata=metadata, timeout=20)]
        return [transport(), stream, *outcomes(channel)]


def applications() -> list[str]:
    return sorted(application.name for application in sdk.status().applications)


def replicas(name: str) -> int:
    (found,) = (application for application in sdk.status().applications if application.name == name)
    return found.deployments[0].replicas


@contextlib.contextmanager
def load(name: str) -> Iterator[None]:
    over = threading.Event()

    def calls() -> None:
        while not over.is_set():
            with contextlib.suppress(grpc.RpcError):
                call(name, 500)

    threads = [threading.Thread(target=calls) for _ in range(8)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def report(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def serve_run(*arguments: str) -> int:
    return subprocess.run([BIN / "serve", "run", *arguments], capture_output=True, timeout=100, check=False).returncode


def run_command(path: Path, address: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start ``sdk run`` and wait until it serves."""
    process = subprocess.Popen(
        [BIN / "sdk", "run", path, "--address", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    shown = []
    for line in process.stdout:
        shown.append(line.strip())
        if "Ctrl-C" in line:
            break
    return process, shown


def main(folder: Path) -> None:
    leave_out_processes(has_serve_api=True, has_runtime_env=True)
    context = ray.init(
        address="local", num_cpus=8, include_dashboard=True, dashboard_port=free_port(), log_to_driver=False
    )
    dashboard, address = f"http://{context.dashboard_url}", context.address_info["address"]
    try:
        scaled = application("rest", deployments=[{"name": "Slow", "autoscaling_config": AUTOSCALING}])
        put(dashboard, config(scaled))
        report(rest=happens(answers("rest", "rest you")))
        status = ray.get(find_controller().status.remote())
        logs = [path.read_text() for path in Path(log_folder()).glob("replica_rest_*.log")]
        report(announced=f"the gRPC ingress listens on 127.0.0.1:{PORT} of each node" in "".join(logs))
        report(port=status.options.port == PORT, timeout=status.options.request_timeout_s)

        with load("rest"):
            report(scaled=happens(lambda: replicas("rest") == 2))

        serving = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        ray.kill(serving, no_restart=False)
        report(there_while_it_restarts=not happens(lambda: not has_serve(), 2))

        deployed = folder / "deployed.json"
        deployed.write_text(json.dumps(config(scaled, application("deploy"))))
        # It only calls the REST API: Ray Serve's command does so in this process.
        report(deploy=CliRunner().invoke(serve_deploy, ["-a", dashboard, str(deployed)]).exit_code)
        report(deployed=happens(answers("deploy", "deploy you")))
        name = "tests.integration.ways_app:app"
        report(run=serve_run("--non-blocking", "-a", address, "--name", "ran", name))
        report(ran=happens(answers("ran", "Ran you")))

        mine = folder / "mine.yaml"
        mine.write_text(json.dumps(config(application("mine"), application("broken", "broken"))))
        command, shown = run_command(mine, address)
        report(mine=call("mine"), beside=applications(), headline=shown[-1].partition(" at ")[0])
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=100)
        failure = [line for line in errors.splitlines() if line.startswith("error")]
        report(exit=command.returncode, failure=failure, left=applications())

        put(dashboard, None)
        report(gone_with_serve=happens(lambda: find_controller() is None))

        servicers = [
            "probe_pb2_grpc.add_AsyncProbeServicer_to_server",
            "orders_pb2_grpc.add_OrdersServicer_to_server",
            "user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server",
        ]
        own = {"port": SERVES_OWN, "grpc_servicer_functions": servicers}
        http = {"host": "127.0.0.1", "port": free_port()}
        # Without a route that proxy does not find the application.
        routed = {"route_prefix": "/typed", "args": {"notes": str(folder)}}
        typed = {"name": "typed", "import_path": "tests.integration.three_services_app:build", **routed}
        put(dashboard, config(typed, proxy_location="HeadOnly", grpc_options=own, http_options=http))
        report(own=behind_serves_own_proxy())
        report(checked=messages_checked_behind_serves_own_proxy())
        report(handles=handles_behind_serves_own_proxy())
        report(ingress=find_controller() is not None, problem=sdk.status().problem)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
