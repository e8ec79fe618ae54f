"""What the SDK uses of Ray Serve beyond its public API, all of it in this one file.

Checked with Ray Serve 2.60. If an upgrade breaks something, it breaks here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.serve import Application, Deployment, get_replica_context
from ray.serve import context as serve_context
from ray.serve._private.build_app import build_app
from ray.serve._private.router import SingletonThreadRouter

if TYPE_CHECKING:
    from sdk.wire.call import Call

# Downstream replicas keep the requests of many callers under the ids that these gave them.
_PROCESS = uuid.uuid4().hex


def deployment_config() -> Any:
    """Return the configuration that the replica of this process runs with, as Ray Serve changed it last."""
    return get_replica_context()._deployment_config


def bound_deployments(application: Application) -> list[Deployment]:
    """Return the deployments of an application: its own, and each that is bound as an argument of a constructor."""
    found: dict[int, Deployment] = {}

    def look(value: Any) -> None:
        if isinstance(value, Application):
            if id(value) not in found:
                found[id(value)] = deployment = value._bound_deployment
                look([deployment.init_args, deployment.init_kwargs])
        elif isinstance(value, dict):
            look(list(value.values()))
        elif isinstance(value, (list, tuple)):
            for item in value:
                look(item)

    look(application)
    return list(found.values())


def built_deployments(application: Any, name: str) -> list[tuple[str, Any, Any]]:
    """Return the deployments of an application as Ray Serve is about to deploy them.

    Args:
        application: A ``ray.serve.Application``.
        name: The application's name.

    Returns:
        For each the name that it gets, its class or function, and its configuration.
    """
    built = build_app(application, name=name)
    return [(found.name, found.func_or_class, found._deployment_config) for found in built.deployments]


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
