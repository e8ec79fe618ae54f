"""Classify images behind the Open Inference Protocol. Run it with ``sdk run classifier_app:app``."""

from pathlib import Path

import grpc
import numpy as np
from digit_model import PATH, DigitModel, NotAnImageError

from sdk import RpcError, grpc_deployment
from sdk.inference import Arrays, InferenceService, Tensor


@grpc_deployment(max_ongoing_requests=16)
class Classifier(InferenceService):
    """Reads the digit in each image.

    Args:
        path: Of the trained model.
    """

    model_name = "digits"
    platform = "scikit-learn"
    inputs = (Tensor("image", "BYTES", (-1,)),)
    outputs = (Tensor("digit", "INT32", (-1,)), Tensor("probability", "FP32", (-1, 10)))

    def __init__(self, path: str = str(PATH)) -> None:
        self.model = DigitModel(Path(path))

    # A plain function: it runs in one of `max_ongoing_requests` threads, and other calls continue meanwhile.
    def infer(self, inputs: Arrays) -> Arrays:
        try:
            probability = self.model.probabilities(list(inputs["image"]))
        except NotAnImageError as error:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        return {"digit": probability.argmax(axis=1).astype(np.int32), "probability": probability}


app = Classifier.bind()
