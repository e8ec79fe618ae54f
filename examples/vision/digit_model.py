"""The model: a neural network that reads handwritten digits, trained on the images that come with scikit-learn.

``python digit_model.py`` trains it, writes ``digit_model.joblib``, and prints the share of right answers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 8
"""Pixels on each side of the images that the model was trained with."""
_INK = 16
"""The data set's value of a pixel that is all ink; 0 is without ink."""
PATH = Path(__file__).with_suffix(".joblib")


class NotAnImageError(ValueError):
    """Pillow can not read an image from the bytes."""


class DigitModel:
    """Reads digits. Several threads may use it at once.

    Args:
        path: The trained model; trained and written here if it does not exist.
    """

    def __init__(self, path: Path = PATH) -> None:
        import joblib  # type: ignore[import-untyped]  # it has no types

        if not path.exists():
            train(path)
        self._network = joblib.load(path)

    def probabilities(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the probability of each digit for each image, in rows.

        Raises:
            NotAnImageError: An image can't be read; the message has its index.
        """
        if not images:
            return np.empty((0, 10), np.float32)
        pixels = [_pixels(index, image) for index, image in enumerate(images)]
        found: NDArray[Any] = self._network.predict_proba(np.stack(pixels))
        return found.astype(np.float32)


def train(path: Path = PATH) -> float:
    """Train the model and write it to a file.

    Args:
        path: The file; an existing one is replaced.

    Returns:
        The share of right answers on the images that the model has not seen, a fifth of all.
    """
    import joblib
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it has no types
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]  # it has no types
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]  # it has no types
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]  # it has no types

    pixels, digits = load_digits(return_X_y=True)
    seen, unseen, right, unseen_right = train_test_split(pixels / _INK, digits, test_size=0.2, random_state=0)
    # Any: to infer what its methods return, pyright would read most of scikit-learn.
    network: Any = MLPClassifier((48,), max_iter=25, learning_rate_init=0.02, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 25 rounds are enough here
        network.fit(seen, right)
    # Written to a new file and moved, so that a replica that loads it meanwhile reads a whole one.
    new = path.with_name(f".{path.name}.{os.getpid()}")
    joblib.dump(network, new)
    new.replace(path)
    return float(network.score(unseen, unseen_right))


def digit_png(digit: int, side: int = 64) -> bytes:
    """Return a PNG image of a digit of the data set, white on black.

    Args:
        digit: From 0 to 9.
        side: Pixels on each side of the image.
    """
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    first = pixels[list(digits).index(digit)].reshape(SIDE, SIDE)
    image = Image.fromarray((first * (255 / _INK)).astype(np.uint8))
    png = BytesIO()
    image.resize((side, side), Image.Resampling.NEAREST).save(png, "PNG")
    return png.getvalue()


def _pixels(index: int, data: bytes) -> NDArray[np.float64]:
    try:
        with Image.open(BytesIO(data)) as image:
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise NotAnImageError(f"image {index} of {len(data)} bytes can't be read: {type(error).__name__}") from error
    pixels: NDArray[np.float64] = np.asarray(small, np.float64).reshape(-1) / 255
    return pixels


if __name__ == "__main__":
    print(f"{train():.1%} right")
