"""The guide's "Use gRPC context": a handler that sets the status code, the details and trailing metadata.

Run it with ``sdk run app3:g --name app1``.
"""

from collections.abc import Iterator

import grpc
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_sdk import UserDefinedServiceBase

from sdk import RpcError, grpc_deployment
from sdk.context import ServicerContext


@grpc_deployment
class GrpcDeployment(UserDefinedServiceBase):
    """Numbers the names it is called with; an unknown name is an error."""

    def __init__(self) -> None:
        self.nums: dict[str, int] = {}

    def num_lookup(self, name: str) -> tuple[int, grpc.StatusCode, str]:
        """Return the number of a name, with the status code and details for it."""
        if name not in self.nums:
            self.nums[name] = len(self.nums)
            code = grpc.StatusCode.INVALID_ARGUMENT
            message = f"{name} not found, adding to nums."
        else:
            code = grpc.StatusCode.OK
            message = f"{name} found."
        return self.nums[name], code, message

    def __call__(
        self,
        user_message: UserDefinedMessage,
        grpc_context: ServicerContext,  # to use grpc context, add this argument
    ) -> UserDefinedResponse:
        greeting = f"Hello {user_message.name} from {user_message.origin}"
        num, code, message = self.num_lookup(user_message.name)

        # Set custom code, details, and trailing metadata.
        grpc_context.set_code(code)
        grpc_context.set_details(message)
        grpc_context.set_trailing_metadata([("num", str(num))])

        return UserDefinedResponse(greeting=greeting, num=num)

    # The guide leaves these two out. Here a class must answer every RPC of its service, if only with UNIMPLEMENTED.

    def Multiplexing(self, user_message: UserDefinedMessage2) -> UserDefinedResponse2:
        raise RpcError(grpc.StatusCode.UNIMPLEMENTED, "this application only greets")

    def Streaming(self, user_message: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        raise RpcError(grpc.StatusCode.UNIMPLEMENTED, "this application only greets")


g = GrpcDeployment.bind()
