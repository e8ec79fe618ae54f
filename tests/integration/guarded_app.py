"""A deployment with interceptors, in front of one that fails with rich errors. Replicas import this module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import BadRequest
from grpc_interceptor.server import AsyncServerInterceptor
from ray import serve
from ray.serve.handle import DeploymentHandle
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_sdk import UserDefinedServiceBase

from sdk import RpcError, grpc_deployment
from sdk.context import ServicerContext


class Token(grpc.aio.ServerInterceptor):
    """Rejects calls without the right token."""

    def __init__(self, token: str) -> None:
        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

        self._token = token
        self._refuse = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if ("token", self._token) in handler_call_details.invocation_metadata:
            return await continuation(handler_call_details)
        return self._refuse


class Signs(AsyncServerInterceptor):
    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        context.set_trailing_metadata([("signed", method_name)])
        response = method(request_or_iterator, context)
        return response if hasattr(response, "__aiter__") else await response


@serve.deployment(graceful_shutdown_wait_loop_s=0.1)
class Users:
    async def __call__(self, name: str, context: ServicerContext) -> None:
        description = f"{name} is no name in {context.application()}"
        violation = BadRequest.FieldViolation(field="name", description=description)
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "bad name", errors=[BadRequest(field_violations=[violation])])


@grpc_deployment(
    interceptors=[Token("right"), Signs], compression=grpc.Compression.Gzip, graceful_shutdown_wait_loop_s=0.1
)
class Guarded(UserDefinedServiceBase):
    def __init__(self, users: DeploymentHandle[Any]) -> None:
        self.users = users

    async def __call__(self, request: UserDefinedMessage, grpc_context: ServicerContext) -> UserDefinedResponse:
        if request.name == "x":
            await self.users.remote(request.name, grpc_context)
        return UserDefinedResponse(greeting=grpc_context.peer())

    def Multiplexing(self, request: UserDefinedMessage2, grpc_context: ServicerContext) -> UserDefinedResponse2:
        return UserDefinedResponse2(greeting=grpc_context.peer())

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        for _ in range(3):
            yield UserDefinedResponse(greeting="long " * 1000)


def guarded() -> Any:
    return Guarded.bind(Users.bind())
