"""A redeployment with other descriptors, while calls in each protocol run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from catalog_pb2 import Item, Query
from catalog_pb2_grpc import CatalogStub

from tests.integration import catalog_app
from tests.integration.clients import metadata_for, routed_replicas
from tests.integration.conftest import CATALOG, INSTALLED_PROTOS
from tests.support.cluster import generate
from tests.support.deadlines import PACE_S, wait_until
from tests.web.http_client import Answer, ask_at
from tests.web.protocol_forms import FORMS

if TYPE_CHECKING:
    from tests.support.cluster import Ingress

NAME = "catalog"
HEADERS = {"application": NAME}
# Seconds that a call may wait for the start of a replica, on a busy machine too.
WAIT_S = 120.0
UNARY = ("grpc-web", "grpc-web-text", "connect-proto", "connect-json", "json")
STREAMS = ("grpc-web", "grpc-web-text", "connect-proto", "connect-json", "json", "events")


def test_new_and_changed_descriptors_reach_every_protocol_without_a_failed_call_or_a_cut_stream(
    deploy: Any, ingress: Ingress, channel: grpc.Channel, tmp_path: Path
) -> None:
    deploy(catalog_app.Catalog.bind(), NAME)
    stop, until = threading.Event(), tmp_path / "until"
    counts: dict[str, int] = {}

    def ask(target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        return ask_at(ingress.address, target, body, {**HEADERS, **(headers or {})}, timeout_s=WAIT_S)

    def call(name: str) -> None:
        form = FORMS[name]
        headers = {**form.headers, "content-type": form.content_type(False, False)}
        answer = ask("/catalog.Catalog/Get", form.encode([Query(name="nail")], False), headers)
        outcome = form.decode(answer, Item, False, False)
        assert (outcome.code, outcome.messages) == (0, [{"name": "nail"}])

    def call_grpc(name: str) -> None:
        assert CatalogStub(channel).Get(Query(name="nail"), metadata=metadata_for(NAME)).name == "nail"

    def call_route(name: str) -> None:
        assert ask("/v1/items/nail").json["name"] == "nail"

    def repeat(name: str, function: Callable[[str], None]) -> None:
        while not stop.wait(PACE_S):
            function(name)
            counts[name] = counts.get(name, 0) + 1

    def stream(name: str) -> tuple[int | None, list[Any]]:
        form = FORMS[name]
        headers = {**form.headers, "content-type": form.content_type(False, True)}
        answer = ask("/catalog.Catalog/Watch", form.encode([Query(name=name, until=str(until))], True), headers)
        outcome = form.decode(answer, Item, False, True)
        return outcome.code, outcome.messages

    second = os.pathsep.join([str(generate(CATALOG / "second", INSTALLED_PROTOS)), os.environ["PYTHONPATH"]])
    actor = {"num_cpus": 0.1, "runtime_env": {"env_vars": {"PYTHONPATH": second}}}
    with ThreadPoolExecutor(32) as pool:
        streams = {name: pool.submit(stream, name) for name in STREAMS}
        calls = [pool.submit(repeat, name, call) for name in UNARY]
        calls += [pool.submit(repeat, "grpc", call_grpc), pool.submit(repeat, "route", call_route)]
        try:
            wait_until(lambda: all(until.with_suffix(f".{name}").exists() for name in STREAMS))
            wait_until(lambda: len(counts) == len(calls) or any(each.done() for each in calls))
            redeployment = pool.submit(deploy, catalog_app.Catalog.options(ray_actor_options=actor).bind(), NAME)
            wait_until(lambda: redeployment.done() or routed_replicas(NAME) == set())
            # The only replica leaves, and Ray Serve starts the next one when its streams have ended: calls wait.
            assert not any(each.done() for each in streams.values())
            until.touch()
            redeployment.result()
            assert ask("/v2/find/nail?shelf=7").json == {"name": "nail", "shelf": 7}
            assert ask("/v2/shelves/7/items/nail").json == {"name": "nail", "shelf": 7}
            for name in UNARY:
                form = FORMS[name]
                body = b'{"name":"nail","shelf":7}' if "json" in name else form.encode([_RawQuery()], False)
                headers = {**form.headers, "content-type": form.content_type(False, False)}
                answer = ask("/catalog.Catalog/Find", body, headers)
                assert form.decode(answer, Item, False, False).code == 0
                if "json" in name:
                    assert answer.json == {"name": "nail", "shelf": 7}
            document = ask("/openapi.json").json
            assert "/v2/find/{name}" in document["paths"]
            assert document["paths"]["/catalog.Catalog/Get"]["post"]["summary"] == "Returns an item of a shelf."
            before = dict(counts)
            wait_until(
                lambda: all(counts[name] > before[name] for name in counts) or any(each.done() for each in calls)
            )
        finally:
            until.touch()
            stop.set()
    for done in calls:
        done.result()
    for name, done in streams.items():
        code, messages = done.result()
        assert code == 0, name
        assert {message["name"] for message in messages} == {name}
        assert len(messages) > 1


class _RawQuery:
    """A request of the second version, whose code this process has not loaded."""

    def SerializeToString(self) -> bytes:
        return b"\n\x04nail\x18\x07"
