"""What the SDK uses of Ray Serve beyond its public API, all of it in this one file.

Checked with Ray Serve 2.60. If an upgrade breaks something, it breaks here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
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
    context_class = serve_context._RequestContext
    set_context: Callable[[Any], Any] = serve_context._serve_request_context.set
    template = {field.name: field.default for field in fields(context_class)} | {"app_name": application}
    make = object.__new__

    def enter(call: Call) -> None:
        # Written for speed: the frozen dataclass's own constructor takes four times as long.
        context = make(context_class)
        request_id = call.request_id
        context.__dict__.update(
            template,
            request_id=request_id,
            _internal_request_id=call.header(b"x-request-id") or request_id,
            multiplexed_model_id=call.header(b"multiplexed_model_id") or "",
        )
        set_context(context)

    return enter


def cancel_child_requests(call: Call) -> None:
    """Cancel what a cancelled call awaits on other deployments' handles, as Ray Serve's replica does."""
    parent = call.header(b"x-request-id") or call.request_id
    for task in list(serve_context._get_requests_pending_assignment(parent).values()):
        task.cancel()
    in_flight = serve_context._get_in_flight_requests(parent)  # type: ignore[no-untyped-call]
    for result in list(in_flight.values()):
        result.cancel()
