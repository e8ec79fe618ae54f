"""The guide's second application: a classifier composed of three deployments.

Train the model first (``python digits.py``), then run it with ``sdk run app2:g2 --name app2``. The guide downloads a
ResNet; this model is small and trained on data that comes with scikit-learn, so that no network is needed. The rest is
like the guide's.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it has no types
import numpy as np
import numpy.typing as npt
import requests
from digits import SIDE, model_path
from PIL import Image
from ray import serve
from ray.serve.handle import DeploymentHandle
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

from sdk import grpc_deployment, handle


@grpc_deployment
class ImageClassifier(ImageClassificationServiceBase):
    """Classifies the digit in an image."""

    def __init__(
        self,
        _image_downloader: DeploymentHandle[Any],
        _data_preprocessor: DeploymentHandle[Any],
        model_file: Path | None = None,
    ) -> None:
        self._image_downloader = _image_downloader
        self._data_preprocessor = _data_preprocessor
        model_file = model_file or model_path()
        if not model_file.exists():
            raise FileNotFoundError(f"{model_file} is not there: train the model with `python digits.py`")
        self.model = joblib.load(model_file)
        self.categories = [str(category) for category in self.model.classes_]

    async def Predict(self, image_data: ImageData) -> ImageClass:
        # Download image
        image = await self._image_downloader.remote(image_data.url)

        # Preprocess image
        input_batch = await self._data_preprocessor.remote(image)
        # Predict image
        probabilities = self.model.predict_proba(input_batch)[0]
        return self.process_model_outputs(probabilities)

    def process_model_outputs(self, probabilities: npt.NDArray[np.float64]) -> ImageClass:
        """Return the top categories of an image, the likeliest first."""
        top5 = np.argsort(probabilities)[::-1][:5]
        return ImageClass(
            classes=[self.categories[category] for category in top5],
            probabilities=[float(probabilities[category]) for category in top5],
        )


# The two that only handles reach are plain Ray Serve deployments. The guide writes
#
#     @serve.deployment
#     class ImageDownloader: ...
#
#     image_downloader = ImageDownloader.bind()
#
# which works here too. Type checkers do not know what that decorator makes of a class, nor that what `bind` returns
# arrives in the classifier's constructor as a handle; `sdk.handle` below declares it.


class ImageDownloader:
    """Downloads an image."""

    def __call__(self, image_url: str) -> Image.Image:
        response = requests.get(image_url, timeout=10)
        response.raise_for_status()
        return Image.open(BytesIO(response.content)).convert("RGB")


class DataPreprocessor:
    """Converts an image to the model's input."""

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float64]:
        gray = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        return np.asarray(gray, dtype=np.float64).reshape(1, -1) / 255  # a mini-batch of one, as the model takes it


image_downloader = handle(serve.deployment(name="ImageDownloader")(ImageDownloader).bind())
data_preprocessor = handle(serve.deployment(name="DataPreprocessor")(DataPreprocessor).bind())
g2 = ImageClassifier.options(name="grpc-image-classifier").bind(image_downloader, data_preprocessor)
