"""Retrieval as three deployments with typed handles. Run it with ``sdk run retrieval_app:app``."""

from collections.abc import AsyncIterator

import grpc
import numpy as np
from corpus import LanguageModel, passages
from ray import serve
from retrieval_pb2 import Nearest, Passage, Passages, Query, Text, Vector
from retrieval_sdk import EmbedderBase, EmbedderHandle, IndexBase, IndexHandle, RetrieverBase

from sdk import RpcError, grpc_deployment

SMALL = {"num_cpus": 0.5}
MOST = 20


@grpc_deployment(expose=False, ray_actor_options=SMALL, max_ongoing_requests=64)
class Embedder(EmbedderBase):
    """The model. It needs a processor, or a GPU, and is scaled alone."""

    def __init__(self) -> None:
        self.model = LanguageModel()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def Embed(self, requests: list[Text]) -> list[Vector]:
        rows = self.model.embed([request.text for request in requests])
        return [Vector(values=row) for row in rows]


@grpc_deployment(expose=False, ray_actor_options=SMALL)
class Index(IndexBase):
    """The passages and their vectors. It needs memory."""

    def __init__(self) -> None:
        # Here as they would be loaded from a file that a batch job has written with the same model.
        self.vectors = LanguageModel().embed([text for _, text in passages()])

    async def Find(self, request: Nearest) -> AsyncIterator[Passage]:
        scores = self.vectors @ np.array(request.vector.values, np.float32)
        for place in np.argsort(-scores, kind="stable")[: request.limit]:
            if scores[place] <= 0:
                return
            source, text = passages()[place]
            yield Passage(source=source, text=text, score=float(scores[place]))


@grpc_deployment(ray_actor_options=SMALL)
class Retriever(RetrieverBase):
    """Answers clients: one call to the embedder, one to the index."""

    # By their annotations, both handles have the methods of the proto, with types.
    def __init__(self, embedder: EmbedderHandle, index: IndexHandle) -> None:
        self.embedder = embedder
        self.index = index

    async def Search(self, request: Query) -> Passages:
        if not request.text.strip():
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "text is empty")
        if not 0 <= request.limit <= MOST:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"limit is {request.limit}; use 1 to {MOST}")
        vector = await self.embedder.Embed(Text(text=request.text))
        found = self.index.Find(Nearest(vector=vector, limit=request.limit or 3))
        return Passages(passages=[passage async for passage in found])


app = Retriever.bind(Embedder.bind(), Index.bind())
