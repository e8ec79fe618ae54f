"""The service that is measured. A module of its own: Ray's workers import it, and so does the bare server."""

from __future__ import annotations

from collections.abc import AsyncIterator

from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_sdk import UserDefinedServiceBase

from sdk import grpc_deployment


def greet(message: UserDefinedMessage) -> UserDefinedResponse:
    """Do the handler's work, the same in every server."""
    return UserDefinedResponse(greeting=f"Hello {message.name} from {message.origin}", num=message.num * 2)


@grpc_deployment(max_ongoing_requests=1000)
class Greeter(UserDefinedServiceBase):
    """The guide's service with async handlers."""

    async def __call__(self, user_message: UserDefinedMessage) -> UserDefinedResponse:
        return greet(user_message)

    async def Multiplexing(self, user_message: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2()

    async def Streaming(self, user_message: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        for _ in range(user_message.num):
            yield greet(user_message)
