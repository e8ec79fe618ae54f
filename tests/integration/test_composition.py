"""Handlers that call other deployments through Ray Serve's handles."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from user_defined_protos_pb2 import ImageData
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub

from tests.integration import apps


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any) -> None:
    deploy(apps.classifier(), "images")


def test_handles_carry_the_request_id_and_model(channel: grpc.Channel) -> None:
    metadata = (("application", "images"), ("request_id", "r1"), ("multiplexed_model_id", "m1"))
    response = ImageClassificationServiceStub(channel).Predict(ImageData(url="u"), metadata=metadata)
    assert list(response.classes) == ["image of u", "r1", ""]


def test_a_full_downstream_deployment_is_resource_exhausted(channel: grpc.Channel) -> None:
    stub = ImageClassificationServiceStub(channel)
    calls = [stub.Predict.future(ImageData(filename="narrow"), metadata=(("application", "images"),)) for _ in range(8)]
    codes = [call.code() for call in calls]
    assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
