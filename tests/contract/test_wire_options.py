"""Options of the decorator that are the SDK's own: they reach the replica, or are refused when they are given."""

from __future__ import annotations

import grpc
import pytest
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import OptionsError, grpc_deployment
from sdk.deployment import definition_of


class Classifier(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


def test_the_definition_holds_the_compression() -> None:
    definition = definition_of(grpc_deployment(compression=grpc.Compression.Deflate)(Classifier))
    assert definition is not None
    assert definition.compression is grpc.Compression.Deflate
    assert not definition.options


def test_a_compression_that_is_none_is_refused() -> None:
    with pytest.raises(
        OptionsError, match=r"^Classifier: compression must be a member of grpc\.Compression, not 'gzip'"
    ):
        grpc_deployment(compression="gzip")(Classifier)  # type: ignore[call-overload]
