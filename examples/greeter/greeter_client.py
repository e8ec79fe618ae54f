"""Call every RPC of the greeter: ``python greeter_client.py localhost:9000``."""

import asyncio
import sys

import grpc
from greeter_pb2 import HelloReply, HelloRequest
from greeter_sdk import GreeterClient, GreeterSyncClient


def blocking(target: str) -> None:
    """Call with the blocking client."""
    names = [HelloRequest(name="Ada"), HelloRequest(name="Alan")]
    with GreeterSyncClient(target, timeout=5) as client:
        print(client.SayHello(names[0]).text)
        print(" ".join(reply.text for reply in client.SayHelloInManyTongues(names[0])))
        print(client.SayHelloToAll(names).text)
        print(" ".join(reply.text for reply in client.SayHelloToEach(names)))
        try:
            client.SayHello(HelloRequest())
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")


async def conversation(target: str) -> None:
    """Talk in both directions with the async client: the next request depends on the last answer."""
    async with GreeterClient(target, timeout=5) as client:
        call = client.SayHelloToEach()
        name = "Grace"
        for _ in range(3):
            await call.write(HelloRequest(name=name))
            reply = await call.read()
            assert isinstance(reply, HelloReply)  # and not the end of the stream
            print(reply.text)
            name = name[:-1]
        await call.done_writing()


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
    blocking(address)
    asyncio.run(conversation(address))
