"""Health and reflection through Envoy, as health probes and reflection clients use them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.integration.clients import error_of

SERVICE = "userdefinedprotos.UserDefinedService"


def test_health_of_the_proxy_and_of_a_service(channel: grpc.Channel) -> None:
    stub = HealthStub(channel)
    for service in ("", SERVICE, "grpc.health.v1.Health"):
        answer, call = stub.Check.with_call(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert "request_id" in dict(call.trailing_metadata())
    error = error_of(lambda: stub.Check(health_pb2.HealthCheckRequest(service="x.Y")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "request_id" in dict(error.trailing_metadata())


@pytest.mark.skipif(not hasattr(health_pb2, "HealthListRequest"), reason="grpcio-health-checking is older than List")
def test_list_of_all_services(channel: grpc.Channel) -> None:
    answer = HealthStub(channel).List(health_pb2.HealthListRequest(), metadata=(("application", "app1"),))
    serving = {service for service, each in answer.statuses.items() if each.status == each.SERVING}
    assert {"", SERVICE, "grpc.health.v1.Health", "ray.serve.RayServeAPIService"} <= serving


def test_a_reflection_client_calls_a_method_without_generated_code(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    pool = DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("__call__")
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(f"/{SERVICE}/__call__", request.SerializeToString, response.FromString)
    answer: Any = call(request(name="foo", num=30, origin="bar"), metadata=(("application", "app1"),))
    assert (answer.greeting, answer.num) == ("Hello foo from bar", 60)


def test_version_1_of_reflection(channel: grpc.Channel) -> None:
    ask = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
    assert {service.name for service in answer.list_services_response.service} >= {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "ray.serve.RayServeAPIService",
    }
