"""Call each model many times, and count the replicas that answered: ``python translator_client.py localhost:9000``."""

import sys

import grpc
from translator_pb2 import Text
from translator_sdk import TranslatorSyncClient

CALLS = 20


def main(target: str) -> None:
    """Translate with two models, then with one that does not exist."""
    with TranslatorSyncClient(target, timeout=10) as client:
        for language in ("de", "fr"):
            replies = [client.Translate(Text(text="Good morning world"), model_id=language) for _ in range(CALLS)]
            replicas = {reply.replica for reply in replies}
            loads = {reply.loads for reply in replies}
            print(f"{replies[0].text}: {CALLS} calls, {len(replicas)} replica, {len(loads)} load")
        refuse(client, "xx")
        refuse(client, None)


def refuse(client: TranslatorSyncClient, model: str | None) -> None:
    """Print why a call fails."""
    try:
        client.Translate(Text(text="Good morning"), model_id=model)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
