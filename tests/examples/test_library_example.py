"""Composition: calls through the typed handle, and a deployment alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import library_app
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from library_pb2 import Book, Books, Page, Query, RankRequest
from library_sdk import LibrarySyncClient, RankerHandle, RankerSyncClient

import sdk.testing

Serve = Callable[..., LibrarySyncClient]


def test_the_best_book_comes_first(client: Serve) -> None:
    library = client(library_app.app, LibrarySyncClient)
    books = library.Search(Query(words="History of the Sea")).books
    assert [book.title for book in books] == ["A Short History of the Sea", "The Sea and the Sky"]
    pages = list(library.Read(Query(words="history")))
    assert pages == [
        Page(number=1, text="First there was rain."),
        Page(number=2, text="Then there was the sea."),
    ]


def test_the_request_id_goes_through_both_deployments(client: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    library = client(library_app.app, LibrarySyncClient)
    list(library.Read(Query(words="salt"), request_id="r-1"))
    assert capfd.readouterr().out.splitlines() == ["r-1: page 1", "r-1: page 2"]


def test_an_error_of_the_ranker_reaches_the_client_with_its_details(client: Serve) -> None:
    library = client(library_app.app, LibrarySyncClient)
    with pytest.raises(grpc.RpcError) as raised:
        library.Search(Query(words="mountains"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    status = rpc_status.from_call(raised.value)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("NO_BOOK", {"words": "mountains"})


def test_the_ranker_may_be_called_from_outside_too(client: Serve) -> None:
    ranker: Any = client(library_app.app, RankerSyncClient)  # type: ignore[arg-type]  # another client
    books: Books = ranker.Rank(RankRequest(words="sea", titles=["the sea", "sea"]))
    assert [book.title for book in books.books] == ["sea", "the sea"]


async def test_a_test_may_hold_a_typed_handle_itself() -> None:
    async def ask(handle: RankerHandle) -> list[str]:
        return [page.text async for page in handle.Open(Book(title="Cooking with Salt"))]

    with sdk.testing.serve(library_app.Ranker.bind()) as server:
        assert await ask(RankerHandle(server.handle())) == ["Take a pinch.", "Take another."]
