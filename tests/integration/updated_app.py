"""Replaces an application that serves another service. A separate module, because replicas import it."""

from __future__ import annotations

from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import grpc_deployment


@grpc_deployment(graceful_shutdown_wait_loop_s=0.1)
class Plain(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass(classes=[request.url])


app = Plain.bind()
