"""The end of ``sdk run`` when its applications, the ingress or the cluster have gone."""

from __future__ import annotations

import socket
import threading

import pytest

from sdk._serving_status import ApplicationStatus, ProxyStatus, Status
from sdk.cli.run.loss import LossWatch, describe_loss, is_listening
from sdk.errors import ClusterError
from tests.support.ports import free_port

PROXY = ProxyStatus("n", "127.0.0.1:9000", True, 1)
SHOP, OTHER = (ApplicationStatus(name, "RUNNING", ()) for name in ("shop", "other"))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (Status((SHOP, OTHER), (PROXY,)), ""),
        (Status((OTHER,), (PROXY,)), "'shop', 'till' was deleted by another program."),
        (Status((), (PROXY,)), "'shop', 'till' was deleted by another program."),
        (
            Status((), ()),
            "Ray Serve and the ingress were shut down by another program; 'shop', 'till' is no longer served.",
        ),
        (Status((SHOP,), ()), "The ingress was shut down by another program; 'shop', 'till' can no longer be called."),
    ],
)
def test_what_has_gone(status: Status, said: str) -> None:
    assert describe_loss(status, ["shop", "till"]) == said


def test_a_state_that_lasts_is_a_loss_and_a_restart_is_not() -> None:
    states: list[Status | ClusterError] = [
        Status((SHOP,), ()),
        Status((SHOP,), ()),
        ClusterError("restarting"),
        Status((SHOP,), (PROXY,)),
        *[Status((), ())] * 3,
    ]

    def read() -> Status:
        state = states.pop(0)
        if isinstance(state, ClusterError):
            raise state
        return state

    watch = LossWatch("127.0.0.1:1", ["shop"], read)
    for _ in range(6):
        watch.look()
        assert not watch.over.is_set()
    watch.look()
    assert watch.over.is_set()
    assert watch.loss.startswith("Ray Serve and the ingress were shut down by another program")


def test_a_look_at_the_cluster() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as gcs:
        address = "{}:{}".format(*gcs.getsockname())
        blocked = LossWatch(address, ["shop"], lambda: Status((SHOP,), (PROXY,)))
        assert is_listening(address)
        blocked.look_at_cluster()
        assert not blocked.is_cluster_lost
    blocked.look_at_cluster()
    assert (blocked.loss, blocked.is_cluster_lost) == (f"The Ray cluster at {address} has gone.", True)


def test_a_cluster_that_has_gone_is_noticed_while_a_call_to_it_blocks() -> None:
    address, released = f"127.0.0.1:{free_port()}", threading.Event()

    def read() -> Status:
        released.wait()
        return Status((SHOP,), (PROXY,))

    blocked = LossWatch(address, ["shop"], read)
    blocked.start()
    assert blocked.over.wait(30)
    assert (blocked.loss, blocked.is_cluster_lost) == (f"The Ray cluster at {address} has gone.", True)
    released.set()
