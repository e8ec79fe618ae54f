"""What the SDK uses of Ray Serve beyond its public API, all of it in this one file.

Checked with Ray Serve 2.60. If an upgrade breaks something, it breaks here.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.serve import context as serve_context
from ray.serve import get_replica_context
from ray.serve._private.router import SingletonThreadRouter

if TYPE_CHECKING:
    from sdk.wire.call import Call

# Downstream replicas keep the requests of many callers under the ids that these gave them.
_PROCESS = uuid.uuid4().hex


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
        cancel_on_parent_request_cancel = True  # else Ray Serve forgets what the call awaits
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
    """Return the id under which Ray Serve keeps what a call awaits; unlike the request id it is the call's alone.

    What awaits something holds the call's context and with it the call, so that its address is not used again before.
    """
    return f"{_PROCESS}-{id(call):x}"


def current_request_id() -> str:
    """Return the request id that Ray Serve knows here, or ``""``."""
    request_id: str = serve_context._get_serve_request_context().request_id
    return request_id


def carry_model_id(model_id: str) -> None:
    """Let ``serve.get_multiplexed_model_id()`` return a model id here, where a handle has not been given one."""
    context = serve_context._get_serve_request_context()
    if model_id and not context.multiplexed_model_id:
        changed: Any = dataclasses.replace(context, multiplexed_model_id=model_id)
        serve_context._serve_request_context.set(changed)


def cancel_child_requests(call: Call) -> None:
    """Cancel what a cancelled call awaits on other deployments' handles, as Ray Serve's replica does."""
    # Ray Serve's routers live on a loop of their own, unless it is told otherwise.
    loop = SingletonThreadRouter._asyncio_loop or call.server.loop
    # Once around that loop: what was sent through a handle just before is known there by then.
    loop.call_soon_threadsafe(loop.call_soon, _cancel_child_requests, call)


def _cancel_child_requests(call: Call) -> None:
    parent = internal_request_id(call)
    for task in list(serve_context._get_requests_pending_assignment(parent).values()):
        task.cancel()
    in_flight = serve_context._get_in_flight_requests(parent)  # type: ignore[no-untyped-call]
    for result in list(in_flight.values()):
        result.cancel()
