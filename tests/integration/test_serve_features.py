"""Ray Serve's features for requests work in gRPC handlers as they do behind Ray Serve's own proxies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from user_defined_protos_pb2 import ImageData, UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub, UserDefinedServiceStub

from sdk._serve.api import delete
from tests.integration import feature_apps
from tests.integration.clients import error_of, metadata_for
from tests.integration.prober import wait_until

RESOURCES = {"num_cpus": 0.5, "runtime_env": {"env_vars": {"PROBE": "set"}}}


@pytest.fixture(autouse=True, scope="module")
def notes(deploy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    options = feature_apps.Features.options(
        user_config={"greeting": "first"},
        ray_actor_options=RESOURCES,
        placement_group_bundles=[{"CPU": 0.5}, {"CPU": 0.25}],
    )
    deploy(options.bind(str(folder)), "features")
    return folder


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return UserDefinedServiceStub(channel)


@pytest.fixture
def images(channel: grpc.Channel) -> Any:
    return ImageClassificationServiceStub(channel)


def ask(stub: Any, what: str, **metadata: str) -> Any:
    metadata = {"application": "features", **metadata}
    answer = stub.__call__(UserDefinedMessage(name=what), metadata=tuple(metadata.items()))
    return json.loads(answer.greeting)


def pid(stub: Any, application: str, act: str = "") -> int:
    return int(stub.__call__(UserDefinedMessage(name=act), metadata=metadata_for(application), timeout=5).num)


def is_served(call: Callable[[], int], *, not_by: int = 0) -> bool:
    """Return True if a replica other than the given one answers a call, which returns its process id."""
    try:
        return call() != not_by
    except grpc.RpcError as error:
        # DEADLINE_EXCEEDED: the call has waited for the next replica in vain.
        if error.code().name in ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED"):
            return False
        raise


def lines(notes: Path) -> list[str]:
    file = notes / "notes"
    return file.read_text().splitlines() if file.exists() else []


def test_replica_context(stub: Any) -> None:
    context = ask(stub, "replica")
    assert (context["app"], context["deployment"]) == ("features", "Features")
    assert context["tag"]


def test_handles_forward_the_request_id_the_application_and_a_model_that_the_call_sets(stub: Any) -> None:
    seen = {"request_id": "r1", "app": "features"}
    metadata = {"request_id": "r1", "multiplexed_model_id": "the client's"}
    assert ask(stub, "handle", **metadata) == [{**seen, "model": ""}, {**seen, "model": "m7"}]


def test_resources_bundles_and_environment_reach_the_replica(stub: Any) -> None:
    resources = ask(stub, "resources")
    assert resources["assigned"]["CPU"] == 0.5
    assert resources["bundles"] == [{"CPU": 0.5}, {"CPU": 0.25}]
    assert resources["variable"] == "set"


def test_a_sync_health_check_does_not_block_the_loop(stub: Any) -> None:
    health = ask(stub, "health")
    assert health["threads"] >= 1
    assert not health["on the loop"]


def test_log_lines_carry_the_request_id(stub: Any) -> None:
    file = Path(ask(stub, "log", request_id="logged"))
    list(stub.Streaming(UserDefinedMessage(), metadata=metadata_for("features", request_id="streamed")))
    metadata = metadata_for("features", request_id="failed")
    error_of(stub.__call__, UserDefinedMessage(name="fail"), metadata=metadata)
    expected = {
        "said by an async handler": "logged",
        "said by a thread": "logged",
        "said by a sync stream": "streamed",
        "/userdefinedprotos.UserDefinedService/__call__ failed": "failed",
        "ValueError: said by the server": "",
    }
    wait_until(lambda: all(any(said in line for line in file.read_text().splitlines()) for said in expected))
    for said, request_id in expected.items():
        assert all(request_id in line for line in file.read_text().splitlines() if said in line)


def test_models_are_loaded_once_and_the_least_recently_used_is_unloaded(stub: Any, notes: Path) -> None:
    def use(model: str) -> None:
        metadata = metadata_for("features", multiplexed_model_id=model)
        assert stub.Multiplexing(UserDefinedMessage2(), metadata=metadata).greeting == model

    for model in ("a", "b", "a", "a", "c", "a"):
        use(model)
    assert lines(notes) == ["loaded a", "loaded b", "unloaded b", "loaded c"]
    metadata = metadata_for("features", multiplexed_model_id="of a sync handler")
    (answer,) = stub.Streaming(UserDefinedMessage(), metadata=metadata)
    assert answer.greeting == "of a sync handler"


def test_a_batch_has_the_request_context_of_each_member(images: Any) -> None:
    calls = [
        images.Predict.future(ImageData(url=f"u{i}"), metadata=metadata_for("features", request_id=f"r{i}"))
        for i in range(8)
    ]
    answers = [list(call.result().classes) for call in calls]
    assert [answer[:2] for answer in answers] == [[f"u{i}", f"r{i}"] for i in range(8)]
    sizes = {int(answer[2]) for answer in answers}  # of the batches, which a busy machine can make smaller
    assert 2 <= max(sizes) <= 4


def test_an_error_of_a_batch_is_that_of_each_member(images: Any) -> None:
    urls = ["u", "wrong", "u", "u"]
    calls = [images.Predict.future(ImageData(url=url), metadata=metadata_for("features")) for url in urls]
    for call in calls:
        assert error_of(call.result).code() is grpc.StatusCode.INTERNAL
        assert call.details().endswith("ValueError: a wrong url")


def test_a_batch_continues_without_a_cancelled_member(images: Any) -> None:
    calls = [images.Predict.future(ImageData(url=f"u{i}"), metadata=metadata_for("features")) for i in range(3)]
    calls[0].cancel()
    answers = [list(call.result().classes) for call in calls[1:]]
    assert [answer[0] for answer in answers] == ["u1", "u2"]


def test_user_config_is_applied_before_the_first_call(stub: Any) -> None:
    assert ask(stub, "config") == {"greeting": "first"}


def deploy_config(notes: Path, user_config: dict[str, str]) -> None:
    application = {
        "name": "declared",
        "route_prefix": None,
        "import_path": "tests.integration.feature_apps:declared",
        "args": {"notes": str(notes)},
        "deployments": [
            {"name": "Features", "user_config": user_config},
            {"name": "Inner", "max_ongoing_requests": 7},
        ],
    }
    _get_global_client().deploy_apps(ServeDeploySchema(applications=[application]), _blocking=True)


@pytest.fixture(scope="module")
def notes_of_declared(ingress: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An application of a Serve config file: its folder of notes."""
    folder = tmp_path_factory.mktemp("declared")
    deploy_config(folder, {"say": "first"})
    yield folder
    delete("declared")


def test_a_serve_config_file_changes_user_config_without_a_restart_and_may_have_typed_handles(
    stub: Any, notes_of_declared: Path
) -> None:
    wait_until(lambda: is_served(lambda: pid(stub, "declared")))
    before = pid(stub, "declared")
    assert ask(stub, "config", application="declared") == {"say": "first"}
    through = ask(stub, "typed handle", application="declared")
    assert through["pid"] != before
    assert through["transport"] != "_Responses", "Ray's handle has carried it"
    deploy_config(notes_of_declared, {"say": "second"})
    wait_until(lambda: ask(stub, "config", application="declared") == {"say": "second"})
    assert pid(stub, "declared") == before
    assert ask(stub, "typed handle", application="declared") == through


def test_an_unhealthy_replica_is_replaced(stub: Any, notes_of_declared: Path, deploy: Any, tmp_path: Path) -> None:
    def call_async(act: str = "") -> int:
        metadata = metadata_for("declared")
        answer = stub.__call__(UserDefinedMessage(name="typed handle", origin=act), metadata=metadata, timeout=5)
        return int(json.loads(answer.greeting)["pid"])

    def call_sync(act: str = "") -> int:
        return pid(stub, "sync", act)

    deploy(feature_apps.SyncPatient.bind(str(tmp_path)), "sync")
    wait_until(lambda: is_served(call_async))
    before = {call: call("fall ill") for call in (call_async, call_sync)}

    for call, ill in before.items():
        wait_until(lambda call=call, ill=ill: is_served(call, not_by=ill))
    wait_until(lambda: "async del" in lines(notes_of_declared))
    wait_until(lambda: "sync del" in lines(tmp_path))


def test_models_are_unloaded_when_the_replica_stops(notes: Path) -> None:
    delete("features")
    wait_until(lambda: set(lines(notes)) == {f"{did} {model}" for did in ("loaded", "unloaded") for model in "abc"})
