"""`sdk status` and `sdk shutdown`: output and exit codes for every state of the cluster."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sdk._figures.figures import REQUESTS, Reading
from sdk._serving_status import ApplicationStatus, DeploymentStatus, ProxyStatus, Status
from sdk.cli.cluster_origin import ClusterOrigin, origin_of
from sdk.cli.main import main
from sdk.errors import ClusterError
from tests.support.ports import free_port

DEPLOYMENT = DeploymentStatus("Greeter", "HEALTHY", ("greet.Greeter",), 2, ("127.0.0.1:1", "127.0.0.1:2"))
PROXY = ProxyStatus("0123456789ab", "127.0.0.1:9000", True, envoy_pid=7, version=12)
WELL = Status((ApplicationStatus("greeter", "RUNNING", (DEPLOYMENT,)),), (PROXY,), version=12)
ILL = Status((ApplicationStatus("greeter", "DEPLOY_FAILED", (), "no\nmodel"),), (PROXY,), "the controller is away")

FOUND = ClusterOrigin("10.0.0.5:6379", 2, "ada", "/work/shop")
SHOWN = "Ray at 10.0.0.5:6379, started by ada in /work/shop, 2 nodes\n"


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Replace the connection to Ray; return the addresses of all connections."""
    addresses: list[str | None] = []

    def connect(address: str | None) -> ClusterOrigin:
        addresses.append(address)
        return replace(FOUND, is_named=address is not None)

    monkeypatch.setattr("sdk.cli.ray_cluster.connect", connect)
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
    assert (done.exit_code, done.stderr) == (1, SHOWN)
    assert done.stdout == (
        "application greeter: DEPLOY_FAILED\n"
        "  no model\n"
        "proxy 127.0.0.1:9000 on node 01234567: serving, version 12, Envoy 7\n"
        "problem: the controller is away\n"
    )
    done = run("status", "--json")
    assert (done.exit_code, json.loads(done.stdout)["healthy"]) == (1, False)


def test_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk._serve.api.status", lambda: Status((), ()))
    done = run("status")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "nothing is running\n", SHOWN)


class Refreshes:
    """Statuses for `--watch`, one a refresh; Ctrl-C comes after the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *statuses: Status | ClusterError) -> None:
        self.left = [*statuses]
        monkeypatch.setattr("sdk._serve.api.status", self.read)
        monkeypatch.setattr("sdk.cli.status.sleep", self.sleep)

    def read(self) -> Status:
        found = self.left.pop(0)
        if isinstance(found, ClusterError):
            raise found
        return found

    def sleep(self, _: float) -> None:
        if not self.left:
            raise KeyboardInterrupt


def reading(at: float, calls: float) -> Reading:
    labels = frozenset({"application": "greeter", "method": "/g.G/M", "status_code": "OK"}.items())
    return Reading(at, {("n", REQUESTS, labels): calls}, frozenset({"n"}))


def test_watch_in_json_is_one_document_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    Refreshes(monkeypatch, WELL, ClusterError("the controller is away"), ILL)
    readings = [reading(0, 0), reading(2, 10), reading(4, 20)]
    monkeypatch.setattr("sdk._figures.scrape.read_metrics", lambda: readings.pop(0))
    done = run("status", "--watch", "--json")
    assert done.exit_code == 130, done.output
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert (first["healthy"], first["calls"]) == (True, None)
    assert (second["healthy"], second["problem"]) == (False, "the controller is away")
    assert [each["calls"]["methods"][0]["calls_per_s"] for each in (second, third)] == [5, 5]
    assert (third["healthy"], third["applications"][0]["state"]) == (False, "DEPLOY_FAILED")


def test_watch_in_a_pipe_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    Refreshes(monkeypatch, WELL, WELL, WELL)
    readings: list[Any] = [reading(0, 0), ClusterError("no node exports metrics"), reading(4, 20)]

    def read() -> Reading:
        found = readings.pop(0)
        if isinstance(found, ClusterError):
            raise found
        assert isinstance(found, Reading)
        return found

    monkeypatch.setattr("sdk._figures.scrape.read_metrics", read)
    done = run("status", "--watch")
    assert done.exit_code == 130, done.output
    assert done.stdout.count("application greeter: RUNNING") == 3
    assert done.stdout.count("problem: no node exports metrics") == 1
    (line,) = (line for line in done.stdout.splitlines() if "/g.G/M" in line)
    assert line.split() == ["greeter", "/g.G/M", "5.0", "-", "-", "0", "0"]


def test_watch_in_a_terminal_shows_status_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    Refreshes(monkeypatch, WELL, WELL)
    readings = [reading(0, 0), reading(2, 10)]
    monkeypatch.setattr("sdk._figures.scrape.read_metrics", lambda: readings.pop(0))
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich a terminal
    done = run("status", "--watch")
    assert done.exit_code == 130, done.output
    assert "Counting calls" in done.stdout
    assert "/g.G/M" in done.stdout
    assert "HEALTHY" in done.stdout


@pytest.fixture
def shutdowns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr("sdk._serve.api.shutdown", lambda: calls.append("shutdown"))
    return calls


@pytest.mark.parametrize("consent", [["--address", "10.0.0.5:6379"], ["--yes"]])
def test_shutdown(shutdowns: list[str], connected: list[str | None], consent: list[str]) -> None:
    done = run("shutdown", *consent)
    assert (done.exit_code, done.stdout, done.stderr) == (
        0,
        "Applications, Ray Serve and the ingress are shut down. Ray is still running.\n",
        SHOWN,
    )
    assert (shutdowns, connected) == (["shutdown"], [consent[1] if len(consent) > 1 else None])


def test_shutdown_of_the_users_own_cluster(monkeypatch: pytest.MonkeyPatch, shutdowns: list[str]) -> None:
    monkeypatch.setattr("sdk.cli.ray_cluster.connect", lambda _: replace(FOUND, is_own=True))
    done = run("shutdown")
    assert (done.exit_code, done.stderr, shutdowns) == (0, SHOWN, ["shutdown"])


def test_no_shutdown_of_somebody_elses_cluster_without_a_terminal(shutdowns: list[str]) -> None:
    done = run("shutdown")
    refused = "This command did not start that cluster: name it with --address 10.0.0.5:6379, or give --yes.\n"
    assert (done.exit_code, done.stdout, done.stderr, shutdowns) == (1, "", f"{SHOWN}error: {refused}", [])


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, shutdowns: list[str], answer: str) -> None:
    monkeypatch.setattr("sdk.cli.cluster_origin.is_terminal_input", lambda: True)
    done = CliRunner().invoke(main, ["shutdown"], input=f"{answer}\n")
    assert (done.exit_code, shutdowns) == ((0, ["shutdown"]) if answer == "y" else (1, []))
    assert "Shut down every application, Ray Serve and the ingress there? [y/N]" in done.stderr


def test_who_started_a_cluster() -> None:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", "input('ready\\n')", f"--gcs-address={address}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as raylet:
        try:
            assert raylet.stdout is not None
            assert raylet.stdout.readline() == b"ready\n"  # the kernel shows its arguments only after its start
            found = origin_of(address, 1, is_named=False, is_newest=False)
            assert (found.user, found.folder, found.is_own) == (pwd.getpwuid(os.getuid()).pw_name, "/", False)
            assert origin_of(address, 1, is_named=False, is_newest=True).is_own
        finally:
            raylet.communicate(b"\n")
    assert str(origin_of(address, 1, is_named=True, is_newest=False)) == f"Ray at {address}, started elsewhere, 1 node"


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
