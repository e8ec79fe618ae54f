"""Three deployments: one that clients call, one with a typed handle, a plain one. Run: ``sdk run library_app:app``."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # it has no types
from library_pb2 import Book, Books, Page, Query, RankRequest
from library_sdk import LibraryBase, RankerBase, RankerHandle
from ray import serve
from ray.serve.handle import DeploymentHandle

from sdk import RpcError, current_context, grpc_deployment, handle

SHELF = {
    "The Sea and the Sky": ["The sea was calm.", "The sky was not.", "They met at the horizon."],
    "A Short History of the Sea": ["First there was rain.", "Then there was the sea."],
    "Cooking with Salt": ["Take a pinch.", "Take another."],
}
SMALL = {"num_cpus": 0.5}


class Index:
    """Finds titles by their words. A plain deployment: no proto, any Python objects."""

    def find(self, words: list[str]) -> list[str]:
        """Return the titles that have one of the words."""
        return [title for title in SHELF if set(words) & set(title.lower().split())]


@grpc_deployment(ray_actor_options=SMALL)
class Ranker(RankerBase):
    """Ranks titles for any caller: a deployment, or a client."""

    async def Rank(self, request: RankRequest) -> Books:
        wanted = set(request.words.lower().split())
        books = [Book(title=title, score=self.score(title, wanted)) for title in request.titles]
        if not books:
            # If the library does not catch it, its client gets it unchanged.
            info = ErrorInfo(reason="NO_BOOK", domain="library.example.com", metadata={"words": request.words})
            raise RpcError(grpc.StatusCode.NOT_FOUND, f"no book about {request.words}", errors=[info])
        return Books(books=sorted(books, key=lambda book: book.score, reverse=True))

    def score(self, title: str, wanted: set[str]) -> float:
        """Return the share of a title's words that the query has."""
        words = title.lower().split()
        return sum(word in wanted for word in words) / len(words)

    async def Open(self, request: Book) -> AsyncIterator[Page]:
        for number, text in enumerate(SHELF[request.title], 1):
            # The request id and the deadline come from the client's call, two deployments away.
            print(f"{current_context().request_id()}: page {number}")
            await asyncio.sleep(0.01)
            yield Page(number=number, text=text)


@grpc_deployment(ray_actor_options=SMALL)
class Library(LibraryBase):
    """Answers clients."""

    # By its annotation, `ranker` has the methods of the proto, with types.
    def __init__(self, index: DeploymentHandle[Any], ranker: RankerHandle) -> None:
        self.index = index
        self.ranker = ranker

    async def Search(self, request: Query) -> Books:
        titles: list[str] = await self.index.find.remote(request.words.lower().split())
        return await self.ranker.Rank(RankRequest(words=request.words, titles=titles), timeout=2)

    async def Read(self, request: Query) -> AsyncIterator[Page]:
        found = await self.Search(request)
        async for page in self.ranker.Open(found.books[0]):
            yield page


index = handle(serve.deployment(name="Index", ray_actor_options=SMALL)(Index).bind())
app = Library.bind(index, Ranker.bind())
