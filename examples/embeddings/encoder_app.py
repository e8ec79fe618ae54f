"""Serve a sentence encoder with batches. Run it with ``sdk run encoder_app:app``."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from minilm import SentenceEncoder, find_model
from numpy.typing import NDArray
from ray import serve
from sentences_pb2 import Texts, Vector, Vectors
from sentences_sdk import EncoderBase

from sdk import RpcError, grpc_deployment

MOST_TEXTS = 256


@grpc_deployment(max_ongoing_requests=64)
class Encoder(EncoderBase):
    """Encodes sentences with all-MiniLM-L6-v2.

    Args:
        folder: Of the model; by default that of the installed package.
    """

    def __init__(self, folder: str = "") -> None:
        # Here, and not in the module: the replica loads the model, and so no check of the module needs it.
        self.model = SentenceEncoder(Path(folder) if folder else find_model())

    async def Encode(self, request: Texts) -> Vectors:
        if len(request.texts) > MOST_TEXTS:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"{len(request.texts)} texts; at most {MOST_TEXTS}")
        vectors = await self.encode_together(list(request.texts))
        return Vectors(vectors=[Vector(values=row) for row in vectors])

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def encode_together(self, requests: list[list[str]]) -> list[NDArray[Any]]:
        """Encode the texts of several calls. The model runs in a thread, so that calls arrive meanwhile."""
        texts = [text for request in requests for text in request]
        vectors = await asyncio.to_thread(self.model.encode, texts)
        return np.split(vectors, np.cumsum([len(request) for request in requests])[:-1])


app = Encoder.bind()
