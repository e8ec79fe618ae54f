"""Run calls that arrive together through the model in one batch. Run it with ``sdk run embedder_app:app``."""

import asyncio
import math
import zlib

from embedder_pb2 import Embedding, Text
from embedder_sdk import EmbedderBase
from ray import serve

from sdk import grpc_deployment

DIMENSIONS = 8
# Cost of one pass of the model, for any number of texts.
PASS_S = 0.02


def embed(text: str) -> list[float]:
    """Return a vector of length 1: each word adds to the dimension that it hashes to."""
    values = [0.0] * DIMENSIONS
    for word in text.lower().split():
        values[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


# At least a batch of calls must run at once; more, so that the next batch fills while this one runs.
@grpc_deployment(max_ongoing_requests=64)
class Embedder(EmbedderBase):
    """Embeds texts in batches of up to sixteen."""

    # The RPC takes one message, as the proto says; Ray Serve collects those of several calls and gives each its answer.
    # An exception ends all calls of the batch.
    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.02)
    async def Embed(self, requests: list[Text]) -> list[Embedding]:
        await asyncio.sleep(PASS_S)
        return [Embedding(values=embed(request.text), batch_size=len(requests)) for request in requests]


app = Embedder.bind()
