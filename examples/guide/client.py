"""The guide's client code, in the guide's order.

``python client.py ADDRESS [SECTION …]`` runs sections of the guide; by default those that need only app1. Each section
names the applications that it needs. ``python client.py`` alone lists the sections.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import grpc

# Ray's generated code has no types.
from ray.serve.generated.serve_pb2 import HealthzRequest, ListApplicationsRequest  # type: ignore[attr-defined]
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub
from user_defined_protos_pb2 import ImageData, UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub, UserDefinedServiceStub


def greet(channel: grpc.Channel) -> None:
    """Send gRPC requests to serve deployments. Needs app1 as the only application."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")

    response, call = stub.__call__.with_call(request=request)
    print(f"status code: {call.code()}")  # grpc.StatusCode.OK
    print(f"greeting: {response.greeting}")  # "Hello foo from bar"
    print(f"num: {response.num}")  # 60


def health(channel: grpc.Channel) -> None:
    """Check proxy health."""
    stub = RayServeAPIServiceStub(channel)  # type: ignore[no-untyped-call]  # see its import
    list_response = stub.ListApplications(request=ListApplicationsRequest())
    print(f"Applications: {list(list_response.application_names)}")  # ["app1"]

    health_response = stub.Healthz(request=HealthzRequest())
    print(f"Health: {health_response.message}")  # "success"


def metadata(channel: grpc.Channel) -> None:
    """Work with gRPC metadata. Needs app1."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage2()
    app_name = "app1"
    request_id = "123"
    multiplexed_model_id = "999"
    metadata = (
        ("application", app_name),
        ("request_id", request_id),
        ("multiplexed_model_id", multiplexed_model_id),
    )

    response, call = stub.Multiplexing.with_call(request=request, metadata=metadata)
    print(f"greeting: {response.greeting}")  # "Method2 called model, loading model: 999"
    for key, value in call.trailing_metadata():
        print(f"trailing metadata key: {key}, value", value)  # "request_id: 123"


def streaming(channel: grpc.Channel) -> None:
    """Streaming. Needs app1."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")
    metadata = (("application", "app1"),)

    responses = stub.Streaming(request=request, metadata=metadata)
    for response in responses:
        print(f"greeting: {response.greeting}")  # greeting: n: Hello foo from bar
        print(f"num: {response.num}")  # num: 60 + n


def predict(channel: grpc.Channel, url: str) -> None:
    """Model composition. Needs app2, and the URL of an image that it can download."""
    stub = ImageClassificationServiceStub(channel)
    request = ImageData(url=url)
    metadata = (("application", "app2"),)  # Make sure application metadata is passed.

    response, call = stub.Predict.with_call(request=request, metadata=metadata)
    print(f"status code: {call.code()}")  # grpc.StatusCode.OK
    print(f"Classes: {list(response.classes)}")  # ['3', ...]
    print(f"Probabilities: {list(response.probabilities)}")  # [0.99..., ...]


def errors(channel: grpc.Channel) -> None:
    """Handle errors. Needs two applications: then a call must name its application."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")

    try:
        stub.__call__(request=request)
    except grpc.RpcError as rpc_error:
        print(f"status code: {rpc_error.code()}")  # StatusCode.NOT_FOUND
        print(f"details: {rpc_error.details()}")  # Application metadata not set...


def context(channel: grpc.Channel) -> None:
    """Use gRPC context. Needs app3 under the name of app1, not called before."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")
    metadata = (("application", "app1"),)

    # First call is going to page miss and return INVALID_ARGUMENT status code.
    try:
        stub.__call__.with_call(request=request, metadata=metadata)
    except grpc.RpcError as rpc_error:
        trailing: Any = rpc_error.trailing_metadata()  # its stub does not know that these are pairs
        assert rpc_error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert rpc_error.details() == "foo not found, adding to nums."
        assert any(key == "num" and value == "0" for key, value in trailing)
        assert any(key == "request_id" for key, _ in trailing)
        print(f"first call: {rpc_error.code()}: {rpc_error.details()}")
    else:
        raise AssertionError("the first call must fail")

    # Second call is going to page hit and return OK status code.
    _, call = stub.__call__.with_call(request=request, metadata=metadata)
    assert call.code() == grpc.StatusCode.OK
    # The server sends "foo found.". Since 1.82 grpcio does not show the details of a call that went well.
    assert call.details() in ("foo found.", "")
    assert any(key == "num" and value == "0" for key, value in call.trailing_metadata())
    assert any(key == "request_id" for key, _ in call.trailing_metadata())
    print(f"second call: {call.code()}, num", dict(call.trailing_metadata())["num"])


SECTIONS: dict[str, Callable[[grpc.Channel], None]] = {
    "greet": greet,
    "health": health,
    "metadata": metadata,
    "streaming": streaming,
    "errors": errors,
    "context": context,
}


def main(arguments: list[str]) -> int:
    """Run sections; returns the exit code."""
    known = [*SECTIONS, "predict=URL"]
    if not arguments or any(name not in SECTIONS and not name.startswith("predict=") for name in arguments[1:]):
        print(f"usage: python client.py ADDRESS [SECTION ...]\nsections: {', '.join(known)}", file=sys.stderr)
        return 2
    address, *names = arguments
    with grpc.insecure_channel(address) as channel:
        for name in names or ("greet", "health", "metadata", "streaming"):
            if name in SECTIONS:
                SECTIONS[name](channel)
            else:
                predict(channel, name.removeprefix("predict="))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
