"""The deployment of a decorated class is what `serve.deployment` makes of its options."""

from __future__ import annotations

from typing import Any

import pytest
from ray import cloudpickle, serve
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import grpc_deployment


class Classifier(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


def made(options: dict[str, Any]) -> serve.Deployment:
    application: Any = grpc_deployment(**options)(type("Classifier", (Classifier,), {})).bind()
    return application._bound_deployment


def described(deployment: serve.Deployment) -> list[Any]:
    config, replica = deployment._deployment_config, deployment._replica_config
    bundles = replica.placement_group_bundles, replica.placement_group_strategy
    return [
        deployment.name,
        config.model_dump(),
        replica.ray_actor_options,
        *bundles,
        replica.max_replicas_per_node,
        replica.init_args,
        replica.init_kwargs,
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "other", "num_replicas": 3, "max_ongoing_requests": 7, "user_config": {"a": 1}},
        {"ray_actor_options": {"num_cpus": 0.5}, "max_replicas_per_node": 2, "max_queued_requests": 5},
        {"placement_group_bundles": [{"CPU": 1}], "placement_group_strategy": "PACK"},
        {"logging_config": {"log_level": "DEBUG"}},
        {"num_replicas": None, "graceful_shutdown_timeout_s": 1, "health_check_period_s": 3},
        {},
    ],
)
def test_it_is_the_one_of_ray_serve_whatever_was_made_before(options: dict[str, Any]) -> None:
    named = {"name": "Classifier", **options}
    assert described(made(options)) == described(serve.deployment(**named)(Classifier).bind()._bound_deployment)


def test_the_request_router_is_not_pickled_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    made({})
    pickled, dumps = [], cloudpickle.dumps
    monkeypatch.setattr(cloudpickle, "dumps", lambda value: pickled.append(value) or dumps(value))
    made({"num_replicas": 2})
    assert {value.__name__ for value in pickled if isinstance(value, type)} == {"Classifier"}
