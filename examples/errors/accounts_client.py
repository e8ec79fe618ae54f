"""Print every error of the accounts: ``python accounts_client.py localhost:9000``."""

import sys
from collections.abc import Callable

import grpc
from accounts_pb2 import Account, OpenRequest, WithdrawRequest
from accounts_sdk import AccountsSyncClient
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2 as details  # type: ignore[import-untyped]  # it has no types
from grpc_status import rpc_status

KINDS = (details.BadRequest, details.ErrorInfo, details.LocalizedMessage, details.PreconditionFailure)


def explain(error: grpc.RpcError) -> None:
    """Print an error and its details."""
    print(f"{error.code().name}: {error.details()}")
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # a failed call is both, the error and the call
    for packed in status.details if status is not None else ():
        for kind in KINDS:
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                print(f"  {kind.__name__}:", MessageToDict(detail))


def attempt(call: Callable[[], Account]) -> None:
    """Print the answer of a call."""
    try:
        account = call()
        print(f"{account.owner} has {account.balance}")
    except grpc.RpcError as error:
        explain(error)


def main(target: str) -> None:
    """Open accounts and withdraw from them, with right and wrong requests."""
    with AccountsSyncClient(target, timeout=5) as client:
        account, call = client.Open.with_call(OpenRequest(owner="ada", deposit=1000), request_id="open-1")
        trailers = dict(call.trailing_metadata())
        print(f"{account.owner} has {account.balance}, {trailers['accounts-open']!s} open ({trailers['request_id']!s})")
        attempt(lambda: client.Open(OpenRequest(deposit=-1)))
        attempt(lambda: client.Open(OpenRequest(owner="ada"), metadata=[("accept-language", "de")]))
        attempt(lambda: client.Withdraw(WithdrawRequest(owner="ada", amount=300)))
        attempt(lambda: client.Withdraw(WithdrawRequest(owner="ada", amount=900)))
        attempt(lambda: client.Withdraw(WithdrawRequest(owner="alan", amount=1)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
