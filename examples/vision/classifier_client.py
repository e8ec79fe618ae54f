"""Send images to the classifier: ``python classifier_client.py localhost:9000``."""

import sys

import grpc
import numpy as np
from digit_model import digit_png

from sdk.inference import GRPCInferenceServiceSyncClient, infer_request, response_arrays
from sdk.inference.messages import ModelInferRequest, ModelMetadataRequest


def request_of(*images: bytes) -> ModelInferRequest:
    """Return a request with these images."""
    return infer_request("digits", {"image": np.array(images, object)})


def main(target: str) -> None:
    """Print the signature of the model, its answer for four images, and the error for text."""
    with GRPCInferenceServiceSyncClient(target, timeout=30) as client:
        model = client.ModelMetadata(ModelMetadataRequest(name="digits"))
        for tensor in (*model.inputs, *model.outputs):
            print(tensor.name, tensor.datatype, list(tensor.shape))
        response = client.ModelInfer(request_of(*(digit_png(digit) for digit in (3, 1, 4, 1))))
        print(*response_arrays(response)["digit"])
        try:
            client.ModelInfer(request_of(b"no image"))
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
