"""One RPC of each cardinality. Run it with ``sdk run greeter_app:app``."""

from collections.abc import AsyncIterator

import grpc
from greeter_pb2 import HelloReply, HelloRequest
from greeter_sdk import GreeterBase

from sdk import RpcError, grpc_deployment

SALUTES = ("Hello", "Bonjour", "Hallo", "Hej")


@grpc_deployment(max_ongoing_requests=100)
class Greeter(GreeterBase):
    """Greets politely."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def greet(self, name: str, salute: str = SALUTES[0]) -> HelloReply:
        """Return the greeting; everyone must have a name."""
        if not name:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "whom shall I greet?")
        return HelloReply(text=f"{salute} {name}{self.mark}")

    # A plain function works too: it runs in a thread.
    async def SayHello(self, request: HelloRequest) -> HelloReply:
        return self.greet(request.name)

    # A response stream is an async generator, or a plain one.
    async def SayHelloInManyTongues(self, request: HelloRequest) -> AsyncIterator[HelloReply]:
        for salute in SALUTES:
            yield self.greet(request.name, salute)

    # A request stream ends when the client has sent its last message.
    async def SayHelloToAll(self, requests: AsyncIterator[HelloRequest]) -> HelloReply:
        names = [request.name async for request in requests]
        return self.greet(" and ".join(names))

    # Both streams are open at the same time: an answer leaves before the next request arrives.
    async def SayHelloToEach(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        async for request in requests:
            yield self.greet(request.name)


app = Greeter.bind("!")
