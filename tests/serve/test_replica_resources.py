"""The resources that replicas need, and the message if a cluster does not have them."""

from __future__ import annotations

from typing import Any

import pytest
from ray import serve

from sdk._serve.replica_resources import ReplicaNeeds, find_shortage, needs_of

GIB = 1 << 30


class Plain:
    def __init__(self, *inner: Any) -> None:
        self.inner = inner


def bound(**options: Any) -> Any:
    return serve.deployment(**options)(Plain).bind(serve.deployment(name="Inner")(Plain).bind())


@pytest.mark.parametrize(
    ("options", "replicas", "resources"),
    [
        ({}, 1, {"CPU": 1}),
        ({"num_replicas": 3}, 3, {"CPU": 1}),
        ({"ray_actor_options": {"num_cpus": 0.5, "num_gpus": 1}}, 1, {"CPU": 0.5, "GPU": 1}),
        ({"ray_actor_options": {"resources": {"disk": 2}}}, 1, {"CPU": 1, "disk": 2}),
        ({"ray_actor_options": {"num_cpus": 0, "memory": GIB}}, 1, {"memory": GIB}),
        ({"autoscaling_config": {"min_replicas": 2, "max_replicas": 9}}, 2, {"CPU": 1}),
        ({"autoscaling_config": {"min_replicas": 0, "initial_replicas": 4, "max_replicas": 9}}, 4, {"CPU": 1}),
        ({"autoscaling_config": {"min_replicas": 0, "max_replicas": 9}}, 0, {"CPU": 1}),
    ],
)  # fmt: skip
def test_needs_of_the_code(options: dict[str, Any], replicas: int, resources: dict[str, float]) -> None:
    inner, own = needs_of("app", bound(name="Own", **options))
    assert inner == ReplicaNeeds("app", "Inner", 1, {"CPU": 1})
    assert own == ReplicaNeeds("app", "Own", replicas, resources)


@pytest.mark.parametrize(
    ("configured", "replicas", "resources"),
    [
        ({"num_replicas": 5}, 5, {"CPU": 1, "GPU": 1}),
        ({"ray_actor_options": {"num_cpus": 2}}, 2, {"CPU": 2, "GPU": 1}),
        ({"autoscaling_config": {"min_replicas": 4, "max_replicas": 5}}, 4, {"CPU": 1, "GPU": 1}),
    ],
)
def test_a_config_replaces_the_codes(configured: dict[str, Any], replicas: int, resources: dict[str, float]) -> None:
    application = bound(name="Own", num_replicas=2, ray_actor_options={"num_gpus": 1})
    _, own = needs_of("app", application, {"Own": configured})
    assert own == ReplicaNeeds("app", "Own", replicas, resources)


def test_deployments_with_placement_groups_are_left_out() -> None:
    application = bound(name="Own", placement_group_bundles=[{"CPU": 2}], placement_group_strategy="PACK")
    assert [need.deployment for need in needs_of("app", application)] == ["Inner"]


NODES = [{"CPU": 4.0, "memory": 8.0 * GIB}, {"CPU": 2.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("needs", "shortage"),
    [
        ([], ""),
        ([ReplicaNeeds("a", "X", 6, {"CPU": 1})], ""),
        ([ReplicaNeeds("a", "X", 0, {"TPU": 1})], ""),
        (
            [ReplicaNeeds("a", "X", 6, {"CPU": 1}), ReplicaNeeds("b", "Y", 1, {"CPU": 0.5})],
            "the replicas need 6.5 CPU, and the cluster has 6 (a/X: 6 x 1 CPU, b/Y: 0.5 CPU)",
        ),
        (
            [ReplicaNeeds("a", "X", 1, {"CPU": 4, "GPU": 1})],
            "a replica of a/X needs 4 CPU and 1 GPU on one node, and the nodes have at most 4 CPU and 1 GPU",
        ),
        (
            [ReplicaNeeds("a", "X", 1, {"memory": 9 * GIB})],
            "a replica of a/X needs 9 GiB memory on one node, and the nodes have at most 8 GiB memory",
        ),
    ],
)
def test_a_shortage_names_what_asks_and_what_is_there(needs: list[ReplicaNeeds], shortage: str) -> None:
    assert find_shortage(needs, NODES) == shortage
