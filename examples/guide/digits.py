"""The model that ``app2.py`` serves, and images to try it with: scikit-learn's handwritten digits.

``python digits.py`` trains the model and writes ``digits.joblib`` and ``digit.png`` to the folder that ``GUIDE_DATA``
names, or to this one. The images come with scikit-learn, so nothing is downloaded.

scikit-learn is imported where it is needed: the import takes a second, and every replica of ``app2.py`` imports this
module.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it has no types
import numpy as np
from PIL import Image

SIDE = 8
"""Pixels on each side of the images that the model was trained with."""
_INK = 16
"""The data set's value of a pixel that is all ink; 0 is without ink."""


def folder() -> Path:
    """Return the folder of the model: the environment variable ``GUIDE_DATA``, or the folder of this file."""
    return Path(os.environ.get("GUIDE_DATA") or Path(__file__).resolve().parent)


def model_path() -> Path:
    """Return the path of the model."""
    return folder() / "digits.joblib"


def train(path: Path | None = None) -> Path:
    """Train the model and write it to a file.

    The model takes rows of ``SIDE * SIDE`` numbers from 0 (no ink) to 1, and its classes are the digits.

    Args:
        path: The file, ``model_path()`` by default; an existing one is replaced.

    Returns:
        The path of the file.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it has no types
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # it has no types

    path = path or model_path()
    pixels, digits = load_digits(return_X_y=True)
    # Any: to infer what its methods return, pyright would read most of scikit-learn.
    model: Any = LogisticRegression(max_iter=1000)
    model.fit(pixels / _INK, digits)
    # Written to a new file and moved, so that a replica that loads it meanwhile reads either the whole old or the whole
    # new one.
    new = path.with_name(f".{path.name}.{os.getpid()}")
    joblib.dump(model, new)
    new.replace(path)
    return path


def digit_png(digit: int) -> bytes:
    """Return a PNG image of the first such digit in the data set, white on black, larger than the model's input."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    first = pixels[list(digits).index(digit)].reshape(SIDE, SIDE)
    image = Image.fromarray((first * (255 / _INK)).astype(np.uint8))
    png = BytesIO()
    image.resize((64, 64), Image.Resampling.NEAREST).save(png, "PNG")
    return png.getvalue()


if __name__ == "__main__":
    print(train())
    image = folder() / "digit.png"
    image.write_bytes(digit_png(3))
    print(image)
