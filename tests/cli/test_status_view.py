"""Presentation of the status, and the states that are healthy."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sdk._serving_status import ApplicationStatus, DeploymentStatus, ProxyStatus, Status
from sdk.cli.status_view import as_tables, as_text

DEPLOYMENT = DeploymentStatus("Greeter", "HEALTHY", ("greet.Greeter",), 2, ("10.0.0.1:4000", "10.0.0.2:4000"))
INNER = DeploymentStatus("Vault", "HEALTHY", (), 1, ())
APPLICATION = ApplicationStatus("shop", "RUNNING", (DEPLOYMENT, INNER))
PROXY = ProxyStatus("abcdefghij", "127.0.0.1:9000", True, 4711, version=12)
GOOD = Status((APPLICATION,), (PROXY,), version=12)
UNROUTED = replace(DEPLOYMENT, endpoints=DEPLOYMENT.endpoints[:1])

UNHEALTHY = {
    "nothing runs": Status((), ()),
    "no ingress": replace(GOOD, proxies=()),
    "an application that starts": replace(GOOD, applications=(replace(APPLICATION, state="DEPLOYING"),)),
    "a replica that is not routed to": replace(GOOD, applications=(replace(APPLICATION, deployments=(UNROUTED,)),)),
    "a proxy that is behind": replace(GOOD, proxies=(PROXY, replace(PROXY, up_to_date=False))),
    "a proxy with a problem": replace(GOOD, proxies=(replace(PROXY, problem="it is broken"),)),
}


def test_an_application_without_services() -> None:
    plain = replace(GOOD, applications=(replace(APPLICATION, deployments=(INNER,)),))
    assert as_text(plain).splitlines()[2] == (
        "  no gRPC service: only handles and HTTP reach it; a class with @grpc_deployment would serve one"
    )
    starting = replace(APPLICATION, deployments=(INNER,), state="DEPLOYING")
    assert "no gRPC service" not in as_text(replace(GOOD, applications=(starting,)))


def test_text() -> None:
    assert as_text(GOOD).splitlines() == [
        "application shop: RUNNING",
        "  deployment Greeter: HEALTHY, 2 replicas, serves greet.Greeter",
        "  deployment Vault: HEALTHY, 1 replica, reached by handles",
        "proxy 127.0.0.1:9000 on node abcdefgh: serving, version 12, Envoy 4711",
    ]
    behind = replace(PROXY, up_to_date=False, version=11)
    broken = replace(PROXY, problem="it is broken", envoy_pid=0)
    assert as_text(replace(GOOD, applications=(), proxies=(behind, broken))).splitlines() == [
        "proxy 127.0.0.1:9000 on node abcdefgh: updating, version 11 of 12, Envoy 4711",
        "proxy 127.0.0.1:9000 on node abcdefgh: it is broken, version 12, no Envoy",
    ]
    assert "2 replicas, 1 routed to, serves" in as_text(UNHEALTHY["a replica that is not routed to"])
    assert as_text(Status((), ())) == "nothing is running"


TRACEBACK = """\
The deployment failed to start 3 times in a row. Error:
\x1b[36mray::ServeReplica\x1b[39m
Traceback (most recent call last):
  File "/ray/serve/replica.py", line 7, in initialize
    await self._initialize()
  File "/project/shop_app.py", line 9, in __init__
    raise OSError("no such model")
OSError: no such model
"""
FAILED = Status(
    (ApplicationStatus("shop", "DEPLOY_FAILED", (replace(DEPLOYMENT, replicas=0, endpoints=(), message=TRACEBACK),)),),
    (PROXY,),
)


def test_a_traceback_is_its_last_line_unless_all_is_wanted() -> None:
    reason = "OSError: no such model (shop_app.py:9, in __init__); tried 3 times"
    assert as_text(FAILED).splitlines()[1:3] == [
        "  deployment Greeter: HEALTHY, 0 replicas, serves greet.Greeter",
        f"    {reason}",
    ]
    assert "    Traceback (most recent call last):" in as_text(FAILED, verbose=True).splitlines()
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(as_tables(FAILED))
    assert f"shop/Greeter:\n  {reason}\n" in console.export_text()


def test_tables() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(as_tables(UNHEALTHY["a replica that is not routed to"], "a footer"))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["shop", "Greeter", "HEALTHY", "2,", "1", "routed", "to", "greet.Greeter"] in lines
    assert ["PROXY", "NODE", "STATE", "VERSION", "ENVOY"] in lines
    assert ["127.0.0.1:9000", "abcdefgh", "serving", "12", "4711"] in lines


@pytest.mark.parametrize("status", UNHEALTHY.values(), ids=UNHEALTHY)
def test_unhealthy_states(status: Status) -> None:
    assert GOOD.is_healthy
    assert not status.is_healthy
