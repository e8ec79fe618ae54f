"""Deployments that are bound together in one application."""

from __future__ import annotations

from typing import Any

import pytest
from ray import serve
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import ApplicationError, OptionsError, grpc_deployment
from sdk._serve.deployed_classes import deployed_classes

SERVICE = "userdefinedprotos.ImageClassificationService"


@grpc_deployment
class Classifier(ImageClassificationServiceBase):
    def __init__(self, *inner: Any, **named: Any) -> None:
        """Takes whatever is bound."""

    def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


@serve.deployment
class Plain:
    def __init__(self, *inner: Any) -> None:
        """Takes whatever is bound."""


def nested(inner: Any) -> Any:
    return {"models": [("a", inner)]}


def between(inner: Any) -> Any:
    return Plain.bind(inner)  # type: ignore[attr-defined]  # serve.deployment returns a Deployment


@pytest.mark.parametrize("wrap", [lambda inner: inner, nested, between])
def test_two_deployments_of_one_service_are_refused(wrap: Any) -> None:
    inner = Classifier.options(name="Inner").bind()
    says = f"^Classifier.bind: service '{SERVICE}' is served by two deployments of this application, .*Inner.*expose"
    with pytest.raises(ApplicationError, match=says):
        Classifier.bind(wrap(inner))
    with pytest.raises(ApplicationError, match=says):
        Classifier.bind(model=wrap(inner))


def test_one_deployment_passed_twice_counts_once() -> None:
    inner = Plain.bind(Classifier.bind())  # type: ignore[attr-defined]  # serve.deployment returns a Deployment
    Plain.bind(inner, inner)  # type: ignore[attr-defined]  # serve.deployment returns a Deployment
    Classifier.options(expose=False).bind(Classifier.bind(), Classifier.options(expose=False).bind())


def test_a_deployment_that_is_not_exposed_serves_handles_only() -> None:
    bound: Any = Classifier.options(expose=False, autoscaling_config={"max_replicas": 2}).bind()
    assert not deployed_classes(bound, is_exposed=True)
    assert deployed_classes(bound) == (Classifier,)
    Classifier.bind(Classifier.options(name="Inner", expose=False).bind())


def test_the_decorator_takes_expose_and_options_replaces_it() -> None:
    @grpc_deployment(expose=False)
    class Inner(ImageClassificationServiceBase):
        def Predict(self, request: ImageData) -> ImageClass:
            return ImageClass()

    Classifier.bind(Inner.bind())
    with pytest.raises(ApplicationError):
        Classifier.bind(Inner.options(expose=True).bind())


def test_expose_is_a_bool() -> None:
    with pytest.raises(OptionsError, match=r"^Classifier: expose must be True or False, not 'no'"):
        Classifier.options(expose="no")  # type: ignore[typeddict-item]  # a wrong value is the point
