"""The documents to search, and the model of their language: both come with scikit-learn, nothing is downloaded."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
DIMENSIONS = 48


@cache
def passages() -> list[tuple[str, str]]:
    """Return source and text of each passage: the paragraphs of the descriptions of scikit-learn's data sets."""
    found = []
    for file in sorted(files("sklearn.datasets.descr").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".rst"):
            for paragraph in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
                text = " ".join(paragraph.split())
                if len(text) > 80 and text[0].isalpha():
                    found.append((file.name.removesuffix(".rst"), text))
    return found


class LanguageModel:
    """Latent semantic analysis: texts with words that occur together are close, also if they share none.

    Its words are parts of words, so that a plural and its singular are close. It is fitted on the passages in a moment,
    and each replica fits the same.
    """

    def __init__(self) -> None:
        from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped]  # it has no types
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]  # it has no types

        # Any: to infer their types, pyright would read most of SciPy.
        self._words: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 5), min_df=2, sublinear_tf=True)
        self._topics: Any = TruncatedSVD(DIMENSIONS, random_state=0)
        self._fit([text for _, text in passages()])

    def _fit(self, texts: list[str]) -> None:
        self._topics.fit(self._words.fit_transform(texts))

    def embed(self, texts: list[str]) -> Array:
        """Return one vector for each text, as rows of length 1; of zeros if the model knows no word of it."""
        vectors: NDArray[Any] = self._topics.transform(self._words.transform(texts))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
