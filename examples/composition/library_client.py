"""Search and read books: ``python library_client.py localhost:9000``."""

import sys

import grpc
from library_pb2 import Query
from library_sdk import LibrarySyncClient


def main(target: str) -> None:
    """Search for books, read the best, and ask for one that does not exist."""
    with LibrarySyncClient(target, timeout=10) as client:
        for book in client.Search(Query(words="the sea")).books:
            print(f"{book.score:.2f} {book.title}")
        for page in client.Read(Query(words="salt"), request_id="read-1"):
            print(f"{page.number}: {page.text}")
        try:
            client.Search(Query(words="mountains"))
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
