"""``sdk run`` on a cluster that runs already: whose it is, and whether it has room, before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sdk.cli.cluster_origin import ClusterOrigin
from sdk.cli.main import main
from sdk.errors import ClusterError

FOUND = ClusterOrigin("10.0.0.5:6379", 2, "ada", "/work/shop")
SHOWN = "Ray at 10.0.0.5:6379, started by ada in /work/shop, 2 nodes\n"
# The command begins to change the cluster: that is the end of these tests.
BEGAN = "error: It begins to serve.\n"


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replace the cluster by one that somebody else started."""
    cluster = SimpleNamespace(origin=FOUND, is_local=False, nodes=[{"CPU": 2.0}])

    def connect(address: str | None, *_: Any, **__: Any) -> SimpleNamespace:
        if cluster.origin is not None:
            cluster.origin = replace(cluster.origin, is_named=address is not None)
        return cluster

    def begin(*_: Any) -> None:
        raise ClusterError("It begins to serve.")

    monkeypatch.setattr("sdk.cli.ray_cluster.connect_or_start", connect)
    monkeypatch.setattr("sdk._serve.ray_connection.node_resources", lambda: cluster.nodes)
    monkeypatch.setattr("sdk._serve.ingress_bootstrap.has_serve", begin)
    return cluster


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["run", "app1:g", "--quiet", *arguments], input=answer)


def test_somebody_elses_is_refused_without_a_terminal() -> None:
    done = run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"{SHOWN}error: This command did not start that cluster: name it with --address 10.0.0.5:6379, or give --yes; "
        "or start another one with --address local.\n"
    )


@pytest.mark.parametrize(
    ("answer", "said"), [("y", BEGAN), ("n", "error: Nothing was changed.\n"), ("", "error: Nothing was changed.\n")]
)
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, said: str) -> None:
    monkeypatch.setattr("sdk.cli.cluster_origin.is_terminal_input", lambda: True)
    done = run("--name", "greeter", answer=f"{answer}\n")
    assert done.exit_code == 1
    # Between them, versions of click repeat the answer or not.
    assert done.stderr.startswith(f"{SHOWN}Serve 'greeter' there? [y/N]:")
    assert done.stderr.endswith(said)


@pytest.mark.parametrize("consent", [["--address", "10.0.0.5:6379"], ["--yes"]])
def test_consent_on_the_command_line(consent: list[str]) -> None:
    assert run(*consent).stderr == SHOWN + BEGAN


def test_the_users_own_needs_no_consent(cluster: SimpleNamespace) -> None:
    cluster.origin = replace(FOUND, is_own=True)
    assert run().stderr == SHOWN + BEGAN


def test_a_shortage_that_an_autoscaler_may_end_is_a_warning(cluster: SimpleNamespace) -> None:
    cluster.nodes = [{"CPU": 0.5}]
    assert run("--yes").stderr == (
        f"{SHOWN}warning: a replica of default/GrpcDeployment needs 1 CPU on one node, and the nodes have at most "
        f"0.5 CPU: Ray Serve waits for an autoscaler, or for nodes that you add\n{BEGAN}"
    )


def test_a_shortage_of_a_local_ray_is_an_error(cluster: SimpleNamespace) -> None:
    cluster.is_local, cluster.origin, cluster.nodes = True, None, [{"CPU": 0.5}]
    assert run().stderr == (
        "error: A replica of default/GrpcDeployment needs 1 CPU on one node, and the nodes have at most 0.5 CPU: "
        "lower num_replicas or `ray_actor_options`; with --num-cpus, Ray counts more CPUs than there are.\n"
    )
