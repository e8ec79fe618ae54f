"""The gRPC context, and errors with details. Run it with ``sdk run accounts_app:app``."""

import grpc
from accounts_pb2 import Account, OpenRequest, WithdrawRequest
from accounts_sdk import AccountsBase
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # it has no types
    BadRequest,
    ErrorInfo,
    LocalizedMessage,
    PreconditionFailure,
    ResourceInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no types
from grpc_status import rpc_status

from sdk import RpcError, current_context, grpc_deployment
from sdk.context import ServicerContext

DOMAIN = "accounts.example.com"
ALREADY_OPEN = {"de": "Dieses Konto gibt es schon.", "en": "This account is open already."}


@grpc_deployment
class Accounts(AccountsBase):
    """Keeps accounts in memory."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}

    # A parameter of this name receives the context. Leave it out where it is not needed.
    async def Open(self, request: OpenRequest, grpc_context: ServicerContext) -> Account:
        wrong = []
        if not request.owner:
            wrong.append(BadRequest.FieldViolation(field="owner", description="must not be empty"))
        if request.deposit < 0:
            wrong.append(BadRequest.FieldViolation(field="deposit", description="must not be negative"))
        if wrong:  # all of them at once, so that the client tries again only once
            details = [BadRequest(field_violations=wrong)]
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"{len(wrong)} fields are wrong", errors=details)
        if request.owner in self.balances:
            metadata = dict(grpc_context.invocation_metadata())
            language = str(metadata.get("accept-language", "en"))
            text = ALREADY_OPEN.get(language, ALREADY_OPEN["en"])
            details = [
                ErrorInfo(reason="ALREADY_OPEN", domain=DOMAIN),
                ResourceInfo(resource_type="account", resource_name=request.owner),
                LocalizedMessage(locale=language, message=text),
            ]
            raise RpcError(grpc.StatusCode.ALREADY_EXISTS, "the account is open", errors=details)
        self.balances[request.owner] = request.deposit
        # Metadata of the answer: the client finds it in the trailers, along with the `request_id`.
        grpc_context.set_trailing_metadata([("accounts-open", str(len(self.balances)))])
        return self.account(request.owner)

    async def Withdraw(self, request: WithdrawRequest) -> Account:
        balance = self.balances.get(request.owner)
        if balance is None:
            raise RpcError(grpc.StatusCode.NOT_FOUND, f"{request.owner!r} has no account")
        if balance < request.amount:
            await self.refuse(request.amount - balance)
        self.balances[request.owner] -= request.amount
        return self.account(request.owner)

    async def refuse(self, missing: int) -> None:
        """End the call as code for ``grpc.aio`` does; the context need not be passed down."""
        violation = PreconditionFailure.Violation(type="BALANCE", subject="account", description=f"{missing} missing")
        detail = AnyMessage()
        detail.Pack(PreconditionFailure(violations=[violation]))
        code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
        status = Status(code=code, message="not enough money", details=[detail])
        await current_context().abort_with_status(rpc_status.to_status(status))

    def account(self, owner: str) -> Account:
        """Return an account as clients see it."""
        return Account(owner=owner, balance=self.balances[owner])


app = Accounts.bind()
