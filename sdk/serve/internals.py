"""What the SDK uses of Ray Serve beyond its public API, all of it in this one file.

Checked with Ray Serve 2.60. If an upgrade breaks something, it breaks here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.serve import context as serve_context
from ray.serve import get_replica_context

if TYPE_CHECKING:
    from sdk.wire.call import Call


def deployment_config() -> Any:
    """Return the configuration that the replica of this process runs with, as Ray Serve changed it last."""
    return get_replica_context()._deployment_config


def request_context_setter(application: str) -> Callable[[Call], None]:
    """Return what gives a call Ray Serve's request context.

    With it ``serve.get_multiplexed_model_id()``, ``@serve.multiplexed``, ``@serve.batch`` and deployment handles behave
    in a handler as they do behind Ray Serve's own proxies.

    Args:
        application: Name of the application.
    """

    class CallContext(serve_context._RequestContext):
        """Ray Serve's request context, read from the call when somebody asks: most handlers never do."""

        app_name = application
        request_id = property(lambda self: self.__dict__["call"].request_id)
        _internal_request_id = property(lambda self: internal_request_id(self.__dict__["call"]))
        multiplexed_model_id = property(lambda self: self.__dict__["call"].header(b"multiplexed_model_id") or "")

    set_context: Callable[[Any], Any] = serve_context._serve_request_context.set
    make = object.__new__

    def enter(call: Call) -> None:
        context = make(CallContext)  # without the frozen dataclass's constructor, which sets every field
        context.__dict__["call"] = call
        set_context(context)

    return enter


def internal_request_id(call: Call) -> str:
    """Return the id under which Ray Serve keeps what a call awaits, and cancels it.

    Unlike the request id no client can choose it: Envoy makes it anew for each call.
    """
    return call.header(b"x-request-id") or call.request_id


def cancel_child_requests(call: Call) -> None:
    """Cancel what a cancelled call awaits on other deployments' handles, as Ray Serve's replica does."""
    parent = internal_request_id(call)
    for task in list(serve_context._get_requests_pending_assignment(parent).values()):
        task.cancel()
    in_flight = serve_context._get_in_flight_requests(parent)  # type: ignore[no-untyped-call]
    for result in list(in_flight.values()):
        result.cancel()
