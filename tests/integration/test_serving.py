"""The guide's behaviour through every layer: real Ray, real Envoy, real clients."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import apps
import grpc
import pytest
from ray.serve.generated.serve_pb2 import HealthzRequest, ListApplicationsRequest
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub
from user_defined_protos_pb2 import ImageData, UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub, UserDefinedServiceStub
from user_defined_protos_sdk import UserDefinedServiceClient, UserDefinedServiceSyncClient

import sdk

FOO = UserDefinedMessage(name="foo", num=30, origin="bar")
APP1 = (("application", "app1"),)


def trailing(call: Any) -> dict[str, Any]:
    return {key: value for key, value in call.trailing_metadata()}


def error_of(function: Any, *args: Any, **kwargs: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        function(*args, **kwargs)
    assert trailing(raised.value).get("request_id"), "every answer carries the request id"
    return raised.value


class TestOneApplication:
    """Runs first: nothing else is deployed yet."""

    @pytest.fixture(autouse=True, scope="class")
    def app1(self, deploy: Any) -> None:
        deploy(apps.Guide.bind(), "app1")

    def test_routes_to_the_only_application_without_metadata(self, channel: grpc.Channel) -> None:
        response, call = UserDefinedServiceStub(channel).__call__.with_call(FOO)
        assert (response.greeting, response.num) == ("Hello foo from bar", 60)
        assert call.code() is grpc.StatusCode.OK
        assert len(trailing(call)["request_id"]) == 36

    def test_an_empty_application_is_no_application(self, channel: grpc.Channel) -> None:
        assert UserDefinedServiceStub(channel).__call__(FOO, metadata=(("application", ""),)).num == 60

    def test_a_wrong_application_is_not_found(self, channel: grpc.Channel) -> None:
        error = error_of(UserDefinedServiceStub(channel).__call__, FOO, metadata=(("application", "x"),))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == (
            "Application 'x' not found. Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
        )

    def test_metadata(self, channel: grpc.Channel) -> None:
        metadata = (("application", "app1"), ("request_id", "123"), ("multiplexed_model_id", "999"))
        response, call = UserDefinedServiceStub(channel).Multiplexing.with_call(UserDefinedMessage2(), metadata=metadata)
        assert response.greeting == "Method2 called model, loading model: 999"
        assert trailing(call) == {"request_id": "123"}

    def test_streaming(self, channel: grpc.Channel) -> None:
        call = UserDefinedServiceStub(channel).Streaming(FOO, metadata=(*APP1, ("request_id", "s")))
        assert [response.num for response in call] == [60 + i for i in range(10)]
        assert trailing(call) == {"request_id": "s"}

    def test_aio_client(self, ingress: Any) -> None:
        async def main() -> None:
            async with grpc.aio.insecure_channel(ingress.address) as channel:
                stub = UserDefinedServiceStub(channel)
                call = stub.__call__(FOO, metadata=APP1)
                assert (await call).num == 60
                assert dict(await call.trailing_metadata())["request_id"]
                assert [r.num async for r in stub.Streaming(FOO)] == [60 + i for i in range(10)]

        asyncio.run(main())

    def test_typed_clients(self, ingress: Any) -> None:
        with UserDefinedServiceSyncClient(ingress.address, application="app1", model_id="m1") as client:
            assert client.Multiplexing(UserDefinedMessage2()).greeting.endswith("loading model: m1")
            assert [r.num for r in client.Streaming(FOO)] == [60 + i for i in range(10)]

        async def main() -> None:
            async with UserDefinedServiceClient(ingress.address, application="app1") as client:
                assert (await client.Multiplexing(UserDefinedMessage2(), model_id="m2")).greeting.endswith("model: m2")

        asyncio.run(main())

    def test_serve_api(self, channel: grpc.Channel) -> None:
        stub = RayServeAPIServiceStub(channel)
        response, call = stub.ListApplications.with_call(ListApplicationsRequest(), metadata=(("request_id", "l"),))
        assert list(response.application_names) == ["app1"]
        assert trailing(call)["request_id"] == "l"
        assert stub.Healthz(HealthzRequest()).message == "success"

    def test_unknown_method_names_what_is_missing(self, channel: grpc.Channel) -> None:
        call = channel.unary_unary("/userdefinedprotos.UserDefinedService/Nope")
        error = error_of(call, b"")
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "'app1'" in error.details()
        assert "'Nope'" in error.details()
        assert "'userdefinedprotos.UserDefinedService'" in error.details()

    def test_unknown_client_stream_is_answered_before_it_ends(self, channel: grpc.Channel) -> None:
        never = threading.Event()

        def requests() -> Any:
            yield b""
            never.wait(20)

        call = channel.stream_unary("/userdefinedprotos.UserDefinedService/Nope")
        error = error_of(call, requests(), timeout=10)
        never.set()
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_undecodable_request_names_the_message(self, channel: grpc.Channel) -> None:
        error = error_of(channel.unary_unary("/userdefinedprotos.UserDefinedService/__call__"), b"\xff\xff")
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "userdefinedprotos.UserDefinedMessage" in error.details()

    def test_status(self, ingress: Any) -> None:
        status = sdk.status()
        assert status.is_healthy
        assert status.proxies[0].address == ingress.address
        (application,) = status.applications
        (deployment,) = application.deployments
        assert (application.name, deployment.name, deployment.replicas) == ("app1", "Guide", 1)
        assert deployment.services == ("userdefinedprotos.UserDefinedService",)

    def test_another_option_is_refused(self, ingress: Any) -> None:
        with pytest.raises(sdk.IngressError, match=rf"port {ingress.port} → {ingress.port + 1}"):
            sdk.start(sdk.GrpcOptions(port=ingress.port + 1))


class TestSeveralApplications:
    @pytest.fixture(autouse=True, scope="class")
    def two(self, deploy: Any) -> None:
        deploy(apps.Guide.bind(), "app1")
        deploy(apps.SyncGuide.bind(), "app2")

    def test_each_is_reached_by_its_name(self, channel: grpc.Channel) -> None:
        stub = UserDefinedServiceStub(channel)
        assert stub.__call__(FOO, metadata=APP1).num == 60
        assert stub.__call__(FOO, metadata=(("application", "app2"),)).num == 36

    @pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
    def test_without_metadata_is_not_found(self, channel: grpc.Channel, kind: str) -> None:
        call = getattr(channel, kind)("/userdefinedprotos.UserDefinedService/__call__")
        request = b"" if kind.startswith("unary") else iter([b""])
        error = error_of(lambda: list(call(request)) if kind.endswith("stream") else call(request))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == (
            "Application metadata not set. Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
        )

    def test_sync_handlers(self, channel: grpc.Channel) -> None:
        stub = UserDefinedServiceStub(channel)
        metadata = (("application", "app2"), ("multiplexed_model_id", "m"))
        assert stub.Multiplexing(UserDefinedMessage2(), metadata=metadata).greeting == "m"
        many = stub.Streaming(UserDefinedMessage(name="x", num=5000), metadata=metadata)
        assert [r.num for r in many] == list(range(5000))


class TestComposition:
    @pytest.fixture(autouse=True, scope="class")
    def app(self, deploy: Any) -> None:
        deploy(apps.classifier(), "images")

    def test_handles_carry_the_request_id_and_model(self, channel: grpc.Channel) -> None:
        metadata = (("application", "images"), ("request_id", "r1"), ("multiplexed_model_id", "m1"))
        response = ImageClassificationServiceStub(channel).Predict(ImageData(url="u"), metadata=metadata)
        assert list(response.classes) == ["image of u", "r1", ""]

    def test_a_full_downstream_deployment_is_resource_exhausted(self, channel: grpc.Channel) -> None:
        stub = ImageClassificationServiceStub(channel)
        calls = [
            stub.Predict.future(ImageData(filename="narrow"), metadata=(("application", "images"),)) for _ in range(8)
        ]
        codes = [call.code() for call in calls]
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


class TestStatus:
    @pytest.fixture(autouse=True, scope="class")
    def notes(self, deploy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("notes")
        deploy(apps.Behaviour.bind(str(folder)), "behaviour")
        return folder

    @pytest.fixture
    def call(self, channel: grpc.Channel) -> Any:
        stub = UserDefinedServiceStub(channel)

        def call(name: str, origin: str = "", **kwargs: Any) -> Any:
            metadata = (("application", "behaviour"), ("x-mine", "mine"))
            return stub.__call__.with_call(UserDefinedMessage(name=name, origin=origin), metadata=metadata, **kwargs)

        return call

    def test_custom_metadata_reaches_the_handler(self, call: Any) -> None:
        assert call("")[0].greeting == "mine"

    def test_an_exception_is_internal_with_its_traceback(self, call: Any) -> None:
        error = error_of(call, "raise")
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "apps.py" in error.details()
        assert error.details().endswith("ValueError: this is wrong: ü")
        assert "sdk/wire" not in error.details()

    def test_an_exception_overrides_a_code_and_keeps_trailers(self, call: Any) -> None:
        error = error_of(call, "set code and raise")
        assert error.code() is grpc.StatusCode.INTERNAL
        assert trailing(error)["kept"] == "yes"

    def test_context(self, call: Any) -> None:
        error = error_of(call, "set code")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "not found, adding"
        assert trailing(error)["num"] == "0"

    def test_abort(self, call: Any) -> None:
        error = error_of(call, "abort")
        assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "no")

    def test_rpc_error(self, call: Any) -> None:
        error = error_of(call, "rpc error")
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no user 7")
        assert trailing(error)["user"] == "7"

    @pytest.mark.parametrize(("name", "got"), [("wrong type", "UserDefinedMessage"), ("none", "None")])
    def test_a_wrong_response_names_both_types(self, call: Any, name: str, got: str) -> None:
        error = error_of(call, name)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert got in error.details()
        assert "userdefinedprotos.UserDefinedResponse" in error.details()

    def test_an_exception_amid_a_stream(self, channel: grpc.Channel) -> None:
        call = UserDefinedServiceStub(channel).Streaming(
            UserDefinedMessage(name="raise"), metadata=(("application", "behaviour"),)
        )
        got: list[int] = []
        error = error_of(lambda: got.extend(r.num for r in call))
        assert got == [0, 1, 2]
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details().endswith("ValueError: after three messages")

    def test_a_deadline_cancels_the_handler(self, call: Any, notes: Path) -> None:
        with pytest.raises(grpc.RpcError) as raised:
            call("sleep", "deadline", timeout=0.5)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert apps.wait_for(notes / "deadline-cancelled")

    def test_a_client_that_cancels_cancels_the_handler(self, channel: grpc.Channel, notes: Path) -> None:
        stub = UserDefinedServiceStub(channel)
        metadata = (("application", "behaviour"),)
        future = stub.__call__.future(UserDefinedMessage(name="sleep", origin="cancel"), metadata=metadata)
        assert apps.wait_for(notes / "cancel-began")
        future.cancel()
        assert apps.wait_for(notes / "cancel-cancelled")
        stream = stub.Streaming(UserDefinedMessage(name="sleep", origin="stream"), metadata=metadata)
        assert apps.wait_for(notes / "stream-began")
        stream.cancel()
        assert apps.wait_for(notes / "stream-cancelled")

    def test_too_many_calls_are_resource_exhausted(self, channel: grpc.Channel, notes: Path) -> None:
        stub = UserDefinedServiceStub(channel)
        metadata = (("application", "behaviour"),)
        futures = [
            stub.__call__.future(UserDefinedMessage(name="sleep", origin=f"full{i}"), metadata=metadata)
            for i in range(2)
        ]
        assert apps.wait_for(notes / "full0-began")
        assert apps.wait_for(notes / "full1-began")
        waiting = [stub.__call__.future(UserDefinedMessage(name="", origin=""), metadata=metadata) for _ in range(4)]
        refused = [f for f in waiting if isinstance(f.exception(timeout=1) if f.done() else None, grpc.RpcError)]
        error = error_of(stub.__call__, UserDefinedMessage(), metadata=metadata)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
        for future in futures:
            future.cancel()
        codes = sorted(f.code().name for f in waiting)
        assert codes == ["OK", *["RESOURCE_EXHAUSTED"] * 3], refused


def test_redeploy_under_load_loses_nothing(deploy: Any, ingress: Any) -> None:
    deploy(apps.Guide.bind("v1"), "changing")
    stop = threading.Event()
    seen: list[str] = []
    failed: list[grpc.RpcError] = []

    def load() -> None:
        with grpc.insecure_channel(ingress.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = UserDefinedServiceStub(channel)
            while not stop.is_set():
                try:
                    seen.append(stub.__call__(FOO, metadata=(("application", "changing"),)).greeting[:2])
                except grpc.RpcError as error:
                    failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    deploy(apps.Guide.options(num_replicas=2).bind("v2"), "changing")
    deploy(apps.Guide.options(num_replicas=2).bind("v3"), "changing")
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) >= {"v1", "v2"}
    assert not failed, (len(failed), len(seen), failed[0])


def test_a_deleted_application_is_not_found(deploy: Any, channel: grpc.Channel) -> None:
    from sdk.serve.run import delete

    deploy(apps.Guide.bind(), "short")
    delete("short")
    error = error_of(UserDefinedServiceStub(channel).__call__, FOO, metadata=(("application", "short"),))
    assert error.code() is grpc.StatusCode.NOT_FOUND
