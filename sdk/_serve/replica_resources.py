"""Resources that the replicas of applications need at their start, compared with those of a cluster.

Ray Serve itself waits for resources without end: an autoscaler may bring them.
https://docs.ray.io/en/latest/serve/resource-allocation.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdk._serve.deployed_classes import bound_deployments

_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


@dataclass(frozen=True)
class ReplicaNeeds:
    """The replicas that a deployment starts with.

    Attributes:
        application: Name of the application.
        deployment: Name of the deployment.
        replicas: Their number.
        resources: What each of them needs, by Ray's names: ``CPU``, ``GPU``, ``memory`` in bytes, and others.
    """

    application: str
    deployment: str
    replicas: int
    resources: Mapping[str, float]

    def __str__(self) -> str:
        times = f"{self.replicas} x " if self.replicas > 1 else ""
        return f"{self.application}/{self.deployment}: {times}{_spell(self.resources)}"


def needs_of(
    name: str, application: Any, configured: Mapping[str, Mapping[str, Any]] | None = None
) -> list[ReplicaNeeds]:
    """Return what an application needs at its start. Deployments with placement groups are left out.

    Args:
        name: The application's name.
        application: The result of ``bind``.
        configured: Options of a config file that replace those of the code, by deployment.
    """
    found = []
    for deployment in bound_deployments(application):
        options = (configured or {}).get(deployment.name, {})
        config = deployment._deployment_config
        actor = {**(deployment.ray_actor_options or {}), **(options.get("ray_actor_options") or {})}
        if getattr(deployment, "_replica_config", None) and deployment._replica_config.placement_group_bundles:
            continue
        scaling = options.get("autoscaling_config") or config.autoscaling_config
        replicas = options.get("num_replicas", config.num_replicas)
        if scaling is not None and not isinstance(options.get("num_replicas"), int):
            values = scaling if isinstance(scaling, Mapping) else scaling.model_dump()
            initial = values.get("initial_replicas")
            replicas = values.get("min_replicas", 1) if initial is None else initial
        resources = {_NAMES[key]: value for key, value in {"num_cpus": 1, **actor}.items() if key in _NAMES and value}
        resources |= {key: value for key, value in (actor.get("resources") or {}).items() if value}
        found.append(ReplicaNeeds(name, deployment.name, replicas if isinstance(replicas, int) else 1, resources))
    return found


def find_shortage(needs: Sequence[ReplicaNeeds], nodes: Sequence[Mapping[str, float]]) -> str:
    """Return why the replicas can't all start; ``""`` if they can.

    Args:
        needs: The replicas.
        nodes: The resources of each node, by Ray's names.

    Example:
        >>> find_shortage([ReplicaNeeds("shop", "Counter", 3, {"CPU": 1.0})], [{"CPU": 2.0}])
        'the replicas need 3 CPU, and the cluster has 2 (shop/Counter: 3 x 1 CPU)'
    """
    for need in needs:
        if need.replicas and not any(_fits(need.resources, node) for node in nodes):
            most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in need.resources}
            who = f"a replica of {need.application}/{need.deployment}"
            return f"{who} needs {_spell(need.resources)} on one node, and the nodes have at most {_spell(most)}"
    wanted = _sum((need.resources, need.replicas) for need in needs)
    there = _sum((node, 1) for node in nodes)
    short = {name: value for name, value in wanted.items() if value > there[name]}
    if not short:
        return ""
    asking = ", ".join(str(need) for need in needs if need.replicas and need.resources.keys() & short.keys())
    has = " and ".join(_amount(there[name], name) for name in short)
    return f"the replicas need {_spell(short)}, and the cluster has {has} ({asking})"


def _sum(parts: Iterable[tuple[Mapping[str, float], int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for resources, times in parts:
        for name, value in resources.items():
            total[name] += value * times  # type: ignore[assignment]  # a Counter of floats
    return total


def _fits(resources: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= value for name, value in resources.items())


def _spell(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{_amount(value, name)} {name}" for name, value in resources.items()) or "nothing"


def _amount(value: float, name: str) -> str:
    return f"{value / (1 << 30):.3g} GiB" if name == "memory" else f"{value:g}"
