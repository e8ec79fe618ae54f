"""Ask the documents: ``python retrieval_client.py localhost:9000``."""

import sys

import grpc
from retrieval_pb2 import Query
from retrieval_sdk import RetrieverSyncClient

QUESTIONS = (
    "price of houses in districts",
    "blood pressure of patients",
    "recognition of handwriting",
    "alcohol in Italian wines",
)


def main(target: str) -> None:
    """Print the document with the best passage for each question, and the error for none."""
    with RetrieverSyncClient(target, timeout=30) as client:
        for question in QUESTIONS:
            best = client.Search(Query(text=question, limit=1)).passages[0]
            print(f"{question}: {best.source}")
        try:
            client.Search(Query())
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
