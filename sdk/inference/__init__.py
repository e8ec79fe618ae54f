"""The Open Inference Protocol, which clients of KServe and Triton speak: NumPy arrays in, NumPy arrays out.

Subclass :class:`InferenceService` for one model, or :class:`InferenceRepository` for several that are loaded when they
are needed. Both are generated bases of the service ``inference.GRPCInferenceService``: decorate the class with
``@grpc_deployment``, and bind, check, test and serve it as usual. It needs the extra ``inference``.

Clients use the generated client classes with :func:`infer_request` and :func:`response_arrays`; the other messages are
in :mod:`sdk.inference.messages`.

See https://github.com/kserve/open-inference-protocol and docs/guides/inference.md.

Example:
    ::

        @grpc_deployment(num_replicas=2)
        class Doubler(InferenceService):
            inputs = (Tensor("x", "FP32", (-1,)),)
            outputs = (Tensor("y", "FP32", (-1,)),)

            def infer(self, inputs: Arrays) -> Arrays:
                return {"y": inputs["x"] * 2}


        app = Doubler.bind()
"""

from __future__ import annotations

from sdk._extras import missing_package
from sdk.errors import MissingExtraError

try:
    from sdk.inference._protocol.open_inference_sdk import (
        GRPCInferenceServiceClient,
        GRPCInferenceServiceHandle,
        GRPCInferenceServiceSyncClient,
    )
    from sdk.inference._repository import InferenceRepository
    from sdk.inference._requests import infer_request, response_arrays
    from sdk.inference._service import InferenceService, Model
    from sdk.inference._tensors import Arrays, Tensor
except ModuleNotFoundError as error:
    package = missing_package(error)
    if package is None:
        raise
    raise MissingExtraError("sdk.inference", package, "inference") from error

__all__ = [
    "Arrays",
    "GRPCInferenceServiceClient",
    "GRPCInferenceServiceHandle",
    "GRPCInferenceServiceSyncClient",
    "InferenceRepository",
    "InferenceService",
    "Model",
    "Tensor",
    "infer_request",
    "response_arrays",
]
