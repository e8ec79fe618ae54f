"""Autoscaling by our calls: Ray Serve does not see them, since they reach the replica without its proxies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

#: What a replica's ``record_autoscaling_stats`` calls its calls, running and queued.
ONGOING_CALLS = "grpc_ongoing_calls"
# The most calls that wait at each proxy for the first replica, unless `max_queued_requests` says another number.
_MAX_WAITING = 1000
_POLICY = f"{__name__}:by_ongoing_calls"


def with_our_policy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return deployment options in which autoscaling counts our calls, unless they name a policy of their own.

    Args:
        options: Deployment options, checked.

    Example:
        >>> with_our_policy({"num_replicas": 2})
        {'num_replicas': 2}
    """
    config = options.get("autoscaling_config")
    if config is None and options.get("num_replicas") != "auto":
        return dict(options)
    if isinstance(config, AutoscalingConfig):
        if config.policy.is_default_policy_function():
            policy = AutoscalingPolicy(policy_function=_POLICY)  # type: ignore[no-untyped-call]
            config = config.model_copy(update={"policy": policy})
    else:
        config = {"policy": {"policy_function": _POLICY}, **(config or {})}
    return {**options, "autoscaling_config": config}


def max_waiting(config: Any) -> int:
    """Return how many calls may wait at each proxy while a deployment has no replica; zero when it always has one.

    Args:
        config: The configuration that the deployment runs with.
    """
    autoscaling = config.autoscaling_config
    if autoscaling is None or autoscaling.min_replicas > 0:
        return 0
    limit: int = config.max_queued_requests
    return limit if limit > 0 else _MAX_WAITING


def by_ongoing_calls(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Decide as Ray Serve's default policy does, with our calls among the requests.

    Returns:
        The number of replicas at which each has ``target_ongoing_requests``, and no state. Ray Serve applies its
        bounds, factors and delays to the number.
    """
    if context.current_num_replicas == 0:
        # Ray Serve itself starts the first one, when a handle has a request: see sdk/_serve/cold_start.py.
        return context.target_num_replicas, {}
    told = (context.aggregated_metrics or {}).get(ONGOING_CALLS, {})
    ongoing = context.total_num_requests + sum(told.values())
    target: float = context.config.get_target_ongoing_requests()  # type: ignore[union-attr]
    wanted = ongoing / target
    if len(told) < context.current_num_replicas:
        # A replica that was just started for calls that wait has not told of them yet: that it is idle is no news.
        wanted = max(wanted, float(context.current_num_replicas))
    return wanted, {}
