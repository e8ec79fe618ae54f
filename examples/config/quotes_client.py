"""Ask each application for its quotes: ``python quotes_client.py localhost:9000``."""

import sys

import grpc
from quotes_pb2 import PickRequest
from quotes_sdk import QuotesSyncClient


def main(target: str) -> None:
    """Call both applications; the metadata ``application`` chooses one."""
    for application in ("english", "german"):
        with QuotesSyncClient(target, application=application, timeout=10) as client:
            quote = client.Pick(PickRequest(number=1))
            print(f"{application}: {quote.text} ({quote.language})")
    with QuotesSyncClient(target, timeout=10) as client:
        try:
            client.Pick(PickRequest())
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
