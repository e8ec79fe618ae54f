"""Connection to Ray: a GCS that requires a token, the choice of the cluster, and whatever Ray raises."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

from sdk._serve.ray_connection import check_reachable, connect, find_cluster, ray_errors, start_local
from sdk.errors import ClusterError, OptionsError
from tests.support.cluster import ROOT
from tests.support.ports import free_port
from tests.support.small_ray import PYTHON_START

TOKEN = "0123456789abcdef0123456789abcdef"
REFUSAL = "InvalidAuthToken: Authentication token is missing or incorrect"


class Gcs(grpc.GenericRpcHandler):
    """Refuses like Ray's GCS each call without the token."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            if ("authorization", f"Bearer {TOKEN}") not in context.invocation_metadata():
                context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Gcs()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def check(address: str, home: Path, **variables: str) -> str:
    """Check the address as a user with this home, in a separate process, which keeps the mode and the token."""
    program = (
        "import os, sys\n"
        "from sdk._serve.ray_connection import check_reachable\n"
        "from sdk.errors import ClusterError\n"
        "try: check_reachable(sys.argv[1])\n"
        "except ClusterError as error: print(error)\n"
        "else: print('reached, mode', os.environ.get('RAY_AUTH_MODE'))\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program, address],
        env={**inherited, "HOME": str(home), "PYTHONPATH": f"{PYTHON_START}{os.pathsep}{ROOT}", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    return tmp_path


def test_the_token_of_the_user_is_sent(gcs: str, home: Path) -> None:
    assert check(gcs, home) == "reached, mode token"


def test_without_a_token_the_reason_and_the_remedy_are_told(gcs: str, tmp_path: Path) -> None:
    said = check(gcs, tmp_path)
    assert said.startswith(f"Ray at {gcs} requires a token ({REFUSAL}), and this user has none: take the cluster's")
    assert "`ray get-auth-token`" in said


def test_a_token_that_is_rejected(gcs: str, home: Path) -> None:
    said = check(gcs, home, RAY_AUTH_TOKEN="f" * 32)
    assert said.startswith(f"Ray at {gcs} rejects the token of RAY_AUTH_TOKEN ({REFUSAL}): take the cluster's token")


def test_a_token_that_the_environment_keeps_back(gcs: str, home: Path) -> None:
    said = check(gcs, home, RAY_AUTH_MODE="disabled")
    assert said.endswith("and RAY_AUTH_MODE=disabled prevents that it is sent: unset RAY_AUTH_MODE.")


def test_a_port_that_nothing_listens_on() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=f"^Ray at {address} can't be reached: connection refused.$"):
        check_reachable(address)


def test_a_text_that_is_not_an_address() -> None:
    for address in ("a..b:1", "here:²", "here:99999", "here:0"):
        with pytest.raises(ClusterError, match=r"^'.+' is not the address of a Ray cluster; give HOST:PORT, such as "):
            check_reachable(address)
    with pytest.raises(ClusterError, match=r"^'here' is not the address of a Ray cluster; give HOST:PORT, such as "):
        check_reachable("here")


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The clusters of this machine; none at first."""
    running: set[str] = set()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", lambda: running)
    monkeypatch.setattr(ray._private.services, "find_bootstrap_address", lambda _: "10.0.0.1:6379")
    return running


def test_the_cluster_that_is_named(running: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    running.add("10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert find_cluster("10.0.0.3:6379") == "10.0.0.3:6379"
    assert find_cluster(None) == "10.0.0.2:6379"


def test_the_cluster_of_this_machine(running: set[str]) -> None:
    assert find_cluster(None) is None  # the file of `ray start` is left from one that was killed
    running.add("10.0.0.2:6379")
    assert find_cluster(None) == "10.0.0.2:6379"
    running.add("10.0.0.1:6379")
    assert find_cluster(None) == "10.0.0.1:6379"


def test_one_of_several_clusters_has_to_be_named(running: set[str]) -> None:
    running.update(("10.0.0.2:6379", "10.0.0.3:6379"))
    with pytest.raises(ClusterError, match=r"\(10.0.0.2:6379, 10.0.0.3:6379\): name one by its address"):
        find_cluster(None)


def test_several_clusters_are_named_with_who_started_them(running: set[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    running.update((address, "10.0.0.3:6379"))
    owner = getpass.getuser()
    program = [
        sys.executable,
        "-c",
        "import sys; print('ready', flush=True); sys.stdin.read()",
        f"--gcs-address={address}",
    ]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"  # the kernel shows its arguments only after its start
        said = rf"10.0.0.3:6379, {address} of {owner} since \d{{4}}-\d\d-\d\d \d\d:\d\d\)"
        with pytest.raises(ClusterError, match=said):
            find_cluster(None)


def test_no_cluster_runs(running: set[str]) -> None:
    with pytest.raises(ClusterError, match="No Ray cluster is running on this machine: start one"):
        connect(None)


@pytest.mark.parametrize("kind", [Exception, RuntimeError, TimeoutError, AssertionError, ray.exceptions.RaySystemError])
def test_whatever_ray_raises_at_its_start_is_one_line(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ConnectionError("Failed to connect") from kind("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ClusterError) as raised:
        start_local()
    assert str(raised.value).startswith("A local Ray can't be started: Failed to connect: ")
    assert str(raised.value).endswith("The current node timed out during startup.")


def test_an_error_of_ours_stays_as_it_is() -> None:
    with pytest.raises(OptionsError, match=r"^wrong$"), ray_errors("Ray failed"):
        raise OptionsError("wrong")


def test_a_server_without_that_method_is_reached() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        check_reachable(f"ray://{address}")
    finally:
        server.stop(None).wait()
