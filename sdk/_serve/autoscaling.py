"""Autoscaling on gRPC calls, which Ray Serve cannot see: they reach a replica without its proxies.

The policy is a custom one of Ray Serve: https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

#: Name of the metric in a replica's ``record_autoscaling_stats``: its running and queued calls.
ONGOING_CALLS = "grpc_ongoing_calls"
# Limit of the calls that wait at each proxy for a replica, unless `max_queued_requests` sets another.
_MAX_WAITING = 10_000
_POLICY = f"{__name__}:ongoing_calls_policy"


def with_grpc_policy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return deployment options whose autoscaling policy counts gRPC calls, unless they name another policy.

    Args:
        options: Deployment options, checked.

    Example:
        >>> with_grpc_policy({"num_replicas": 2})
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
    """Return the number of calls that may wait at each proxy while a deployment has no replica.

    Args:
        config: The deployment's current configuration.
    """
    limit: int = config.max_queued_requests
    if limit > 0 or (limit == 0 and not scales_to_zero(config)):
        return limit
    return _MAX_WAITING


def scales_to_zero(config: Any) -> bool:
    """Return whether a deployment may be without replicas until there is a call.

    Args:
        config: The deployment's current configuration.
    """
    autoscaling = config.autoscaling_config
    return autoscaling is not None and autoscaling.min_replicas == 0


def ongoing_calls_policy(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return the desired number of replicas, as Ray Serve's default policy does, with gRPC calls among the requests.

    Returns:
        The number of replicas at which each has ``target_ongoing_requests``, and no state. Ray Serve applies its
        bounds, factors and delays to the number.
    """
    if context.current_num_replicas == 0:
        # Ray Serve itself starts the first one when a handle has a request: see sdk/_serve/cold_start.py.
        return context.target_num_replicas, {}
    reported = (context.aggregated_metrics or {}).get(ONGOING_CALLS, {})
    ongoing = context.total_num_requests + sum(reported.values())
    target: float = context.config.get_target_ongoing_requests()  # type: ignore[union-attr]
    wanted = ongoing / target
    if len(reported) < context.current_num_replicas:
        # A replica that has just started for waiting calls has not reported them yet: do not take it for idle.
        wanted = max(wanted, float(context.current_num_replicas))
    return wanted, {}
