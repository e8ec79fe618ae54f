"""A gRPC context that was passed to another process, as Ray Serve's may be: what the client sent can be read there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from sdk.context import CallState

# Headers that the context has methods for.
_NAMED = (b"application", b"multiplexed_model_id", b"traceparent", b"tracestate")


class PassedCall:
    """What stands for a call behind its context in another process (``sdk.context.CallState``).

    Args:
        call: The call, in its own process.
    """

    def __init__(self, call: CallState) -> None:
        remaining = call.time_remaining()
        vars(self).update(
            request_id=call.request_id,
            metadata=tuple((key, value) for key, value in call.metadata),
            trailing=call.trailing,
            peer=call.peer,
            auth_context=dict(call.auth_context),
            path=call.path,
            code=call.code,
            details=call.details,
            context=None,
            _headers={name: call.header(name) for name in _NAMED},
            _deadline=None if remaining is None else time.time() + remaining,
        )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def header(self, name: bytes) -> str | None:
        value: str | None = self._headers.get(name)
        return value

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.time())

    def is_done(self) -> bool:
        return False

    def is_cancelled(self) -> bool:
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "aborted":  # the error goes to the caller of the handle, and ends its call
            self._refuse()

    def _refuse(self, *_: Any) -> NoReturn:
        raise RuntimeError(
            "this gRPC context was passed to another deployment: what the client sent can be read there, but the "
            "answer is the handler's own. Return to it what it needs, or raise sdk.RpcError"
        )

    set_trailing = send_initial_metadata = set_compression = disable_next_message_compression = _refuse
    on_done = cancel_by_handler = read_message = write_message = _refuse
