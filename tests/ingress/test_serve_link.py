"""Ray Serve, as the ingress controller asks it: without an import of Ray Serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.serve.generated import serve_pb2

from sdk._gen import serve_status_pb2
from sdk._ingress.serve_link import ServeLink

LINK = ServeLink("SERVE_CONTROLLER_ACTOR", "serve", "ray.serve._private.controller")


def status(name: str, state: int, deployments: Sequence[str] = ()) -> bytes:
    """Return the status of an application as Ray Serve's controller serializes it."""
    return serve_pb2.StatusOverview(
        name=name,
        app_status=serve_pb2.ApplicationStatusInfo(status=state, message="why", deployment_timestamp=1.5),
        deployment_statuses=serve_pb2.DeploymentStatusInfoList(
            deployment_status_infos=[
                serve_pb2.DeploymentStatusInfo(name=deployment, message="why") for deployment in deployments
            ]
        ),
    ).SerializeToString()


def answer(monkeypatch: pytest.MonkeyPatch, get: Any) -> None:
    controller = SimpleNamespace(list_serve_statuses=SimpleNamespace(remote=lambda: "reference"))
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: controller)
    monkeypatch.setattr(ray, "get", get)


def test_deployments_and_failed_applications_are_read_from_the_bytes_of_ray_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses = [
        status("shop", serve_pb2.APPLICATION_STATUS_RUNNING, ["Cart", "Stock"]),
        status("new", serve_pb2.APPLICATION_STATUS_DEPLOYING),
        status("bad", serve_pb2.APPLICATION_STATUS_DEPLOY_FAILED, ["Model"]),
        status("old", serve_pb2.APPLICATION_STATUS_DELETING, ["Model"]),
        status("ill", serve_pb2.APPLICATION_STATUS_UNHEALTHY, ["Model"]),
    ]
    answer(monkeypatch, lambda reference, timeout: statuses)
    deployments = LINK.list_deployments()
    assert deployments == {
        "shop": ("Cart", "Stock"),
        "new": (),
        "bad": ("Model",),
        "old": ("Model",),
        "ill": ("Model",),
    }
    assert LINK.list_failed() == {"bad"}


def test_a_ray_serve_that_does_not_answer_has_no_known_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(reference: Any, timeout: float) -> Any:
        raise ray.exceptions.GetTimeoutError("late")

    answer(monkeypatch, fail)
    assert LINK.list_deployments() is None
    assert LINK.list_failed() == frozenset()


def test_without_ray_serve_there_are_no_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, namespace: str) -> Any:
        raise ValueError(name)

    monkeypatch.setattr(ray, "get_actor", absent)
    assert LINK.list_deployments() == {}
    assert LINK.list_failed() == frozenset()


def test_each_field_and_state_is_that_of_ray_serve() -> None:
    ours, theirs = serve_status_pb2.DESCRIPTOR, serve_pb2.DESCRIPTOR
    for name, message in ours.message_types_by_name.items():
        for field in message.fields:
            same = theirs.message_types_by_name[name].fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (same.number, same.type, same.is_repeated)
    for name, enum in ours.enum_types_by_name.items():
        numbers = {value.name: value.number for value in theirs.enum_types_by_name[name].values}
        assert {value.name: value.number for value in enum.values}.items() <= numbers.items()


def test_the_controller_creates_proxies_and_answers_them_without_importing_them_or_ray_serve() -> None:
    program = """
import sys
from types import SimpleNamespace
from unittest import mock
import ray
from sdk._ingress import proxy_fleet
from sdk._ingress.controller import create_controller
from sdk._ingress.serve_link import ServeLink

descriptor = mock.Mock()
controller = SimpleNamespace(
    list_serve_statuses=SimpleNamespace(remote=list), _ray_actor_creation_function_descriptor=descriptor
)
ray.get_actor, ray.get = lambda name, namespace: controller, lambda reference, timeout: reference
link = ServeLink("controller", "serve", "a_module")
assert (link.is_running(), link.list_deployments(), link.list_failed()) == (True, {}, frozenset())
actor = SimpleNamespace(remote=lambda node_id, options: "a proxy")
with mock.patch("ray.remote", lambda cls: SimpleNamespace(options=lambda **options: actor)):
    assert proxy_fleet.create("ab" * 28, None) == "a proxy"
print(*(name for name in ("ray.serve", "sdk._ingress.proxy") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
