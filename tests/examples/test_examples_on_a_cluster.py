"""Tests that need several replicas in separate processes: affinity, and handles between processes."""

from __future__ import annotations

from typing import Any

import library_app
import pytest
import translator_app
from library_pb2 import Query
from library_sdk import LibrarySyncClient
from translator_pb2 import Text
from translator_sdk import TranslatorSyncClient

from tests.support.cluster import Ingress


@pytest.fixture(scope="module")
def address(deploy: Any, ingress: Ingress) -> str:
    deploy(translator_app.app, "translator")
    deploy(library_app.app, "library")
    return ingress.address


def test_all_calls_of_a_model_reach_the_replica_that_has_loaded_it(address: str) -> None:
    with TranslatorSyncClient(address, application="translator", timeout=10) as client:
        for model in ("de", "fr"):
            replies = [client.Translate(Text(text="hello"), model_id=model) for _ in range(20)]
            assert len({(reply.replica, reply.loads) for reply in replies}) == 1


def test_the_library_asks_its_ranker_in_another_process(address: str) -> None:
    with LibrarySyncClient(address, application="library", timeout=10) as client:
        assert [book.title for book in client.Search(Query(words="salt")).books] == ["Cooking with Salt"]
        assert [page.number for page in client.Read(Query(words="salt"))] == [1, 2]
