"""The guide's first application: one RPC of each kind.

Run it with ``sdk run app1:g --name app1``. The guide decorates the class with ``@serve.deployment``; here it is bound
to the service of the proto, so a wrong name, parameter or type is found before anything runs.
"""

import time
from collections.abc import Iterator

from ray import serve
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_sdk import UserDefinedServiceBase

from sdk import grpc_deployment


@grpc_deployment
class GrpcDeployment(UserDefinedServiceBase):
    """Greets, answers with the requested model, and greets ten times."""

    def __call__(self, user_message: UserDefinedMessage) -> UserDefinedResponse:
        greeting = f"Hello {user_message.name} from {user_message.origin}"
        num = user_message.num * 2
        return UserDefinedResponse(greeting=greeting, num=num)

    @serve.multiplexed(max_num_models_per_replica=1)  # type: ignore[untyped-decorator]  # Ray's decorator has no types
    async def get_model(self, model_id: str) -> str:
        """Load a model. Ray Serve keeps it, and calls this again only for a model that the replica has not loaded."""
        return f"loading model: {model_id}"

    async def Multiplexing(self, user_message: UserDefinedMessage2) -> UserDefinedResponse2:
        model_id = serve.get_multiplexed_model_id()
        model = await self.get_model(model_id)  # pyright: ignore[reportCallIssue]  # which pyright misreads
        return UserDefinedResponse2(greeting=f"Method2 called model, {model}")

    def Streaming(self, user_message: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        for i in range(10):
            greeting = f"{i}: Hello {user_message.name} from {user_message.origin}"
            num = user_message.num * 2 + i
            yield UserDefinedResponse(greeting=greeting, num=num)

            time.sleep(0.1)


g = GrpcDeployment.bind()
