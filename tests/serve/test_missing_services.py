"""An application without a gRPC service is named, with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from ray import serve
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import grpc_deployment
from sdk._serve.missing_services import explain_missing_services
from sdk._serve.update_check import warn_of_missing_services


@grpc_deployment
class Classifier(ImageClassificationServiceBase):
    def __init__(self, inner: Any = None) -> None: ...

    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


class Undecorated(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


class Plain:
    def __init__(self, inner: Any = None) -> None: ...


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


Web = serve.ingress(asgi)(Plain)


def bind(cls: Any, *arguments: Any) -> Any:
    return serve.deployment(name=cls.__name__)(cls).bind(*arguments)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (lambda: Classifier.bind(), ""),
        (lambda: Classifier.bind(bind(Plain)), ""),
        (lambda: bind(Plain, Classifier.bind()), ""),
        (lambda: bind(Web), ""),
        (lambda: bind(Web, bind(Plain)), ""),
        (
            lambda: bind(Plain, Classifier.options(expose=False).bind()),
            "it has no gRPC service: Classifier has `expose=False` → remove that from one deployment",
        ),
        (
            lambda: bind(Undecorated),
            "it has no gRPC service: Undecorated is a plain Ray Serve deployment → put @grpc_deployment above "
            "Undecorated in place of @serve.deployment",
        ),
        (
            lambda: bind(Plain),
            "it has no gRPC service: Plain is a plain Ray Serve deployment → derive the class from a generated base, "
            "and put @grpc_deployment above it in place of @serve.deployment",
        ),
    ],
)
def test_the_reason(caplog: pytest.LogCaptureFixture, bound: Callable[[], Any], expected: str) -> None:
    application = bound()  # Ray Serve takes long to make deployments: none is made when tests are collected
    assert explain_missing_services(application) == expected
    with caplog.at_level(logging.WARNING, "sdk.serve"):
        warn_of_missing_services("shop", application)
    assert caplog.messages == ([f"application 'shop' serves no gRPC call: {expected}"] if expected else [])
