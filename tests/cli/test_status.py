"""`sdk status` and `sdk shutdown`: output and exit codes for every state of the cluster."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from sdk._serving_status import ApplicationStatus, DeploymentStatus, ProxyStatus, Status
from sdk.cli.main import main
from sdk.errors import ClusterError

DEPLOYMENT = DeploymentStatus("Greeter", "HEALTHY", ("greet.Greeter",), 2, ("127.0.0.1:1", "127.0.0.1:2"))
PROXY = ProxyStatus("0123456789ab", "127.0.0.1:9000", True, envoy_pid=7, version=12)
WELL = Status((ApplicationStatus("greeter", "RUNNING", (DEPLOYMENT,)),), (PROXY,), version=12)
ILL = Status((ApplicationStatus("greeter", "DEPLOY_FAILED", (), "no\nmodel"),), (PROXY,), "the controller is away")


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Replace the connection to Ray; return the addresses of all connections."""
    addresses: list[str | None] = []
    monkeypatch.setattr("sdk.cli.ray_cluster.connect", addresses.append)
    return addresses


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_everything_is_healthy(monkeypatch: pytest.MonkeyPatch, connected: list[str | None]) -> None:
    monkeypatch.setattr("sdk._serve.api.status", lambda: WELL)
    done = run("status", "--address", "there:6379")
    assert (done.exit_code, done.stderr, connected) == (0, "", ["there:6379"])
    assert done.stdout == (
        "application greeter: RUNNING\n"
        "  deployment Greeter: HEALTHY, 2 replicas, serves greet.Greeter\n"
        "proxy 127.0.0.1:9000 on node 01234567: serving, version 12, Envoy 7\n"
    )
    found = json.loads(run("status", "--json").stdout)
    assert (found["healthy"], found["applications"][0]["deployments"][0]["replicas"]) == (True, 2)
    assert (found["version"], found["proxies"][0]["version"]) == (12, 12)


def test_something_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk._serve.api.status", lambda: ILL)
    done = run("status")
    assert (done.exit_code, done.stderr) == (1, "")
    assert done.stdout == (
        "application greeter: DEPLOY_FAILED no model\n"
        "proxy 127.0.0.1:9000 on node 01234567: serving, version 12, Envoy 7\n"
        "problem: the controller is away\n"
    )
    done = run("status", "--json")
    assert (done.exit_code, json.loads(done.stdout)["healthy"]) == (1, False)


def test_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk._serve.api.status", lambda: Status((), ()))
    done = run("status")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "nothing is running\n", "")


def test_shutdown(monkeypatch: pytest.MonkeyPatch, connected: list[str | None]) -> None:
    calls: list[str] = []
    monkeypatch.setattr("sdk._serve.api.shutdown", lambda: calls.append("shutdown"))
    done = run("shutdown")
    assert (done.exit_code, done.stdout, done.stderr) == (
        0,
        "Applications, Ray Serve and the ingress are shut down. Ray is still running.\n",
        "",
    )
    assert (calls, connected) == (["shutdown"], [None])


@pytest.mark.parametrize("command", ["status", "shutdown"])
def test_no_cluster_and_ctrl_c(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    def raising(error: BaseException) -> None:
        def connect(address: str | None) -> None:
            raise error

        monkeypatch.setattr("sdk.cli.ray_cluster.connect", connect)

    raising(ClusterError("No Ray cluster runs here"))
    done = run(command)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "error: No Ray cluster runs here\n")
    raising(KeyboardInterrupt())
    done = run(command)
    assert (done.exit_code, done.output) == (130, "")
