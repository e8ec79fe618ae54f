"""Private API and patches of Ray Serve for applications without a cluster (``sdk/testing/_local_app.py``).

Checked with Ray Serve 2.60. If an upgrade of Ray breaks the SDK, the fix belongs here or in
``sdk/_serve/internals.py``.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ray import serve
from ray.serve import context as serve_context
from ray.serve._private.http_util import ASGIAppReplicaWrapper

from sdk._otel import current


class CurrentReplica(Protocol):
    """The local replica whose code runs in the current context, for the patched functions of Ray Serve."""

    @property
    def context(self) -> Any:
        """The result of ``serve.get_replica_context()`` in its code."""

    batch_queues: dict[Any, Any]
    """The queues of the replica's methods with ``@serve.batch``."""

    def router_to(self, application: str, deployment: str) -> Any:
        """Return the router for a handle to a deployment."""


_current_replica: contextvars.ContextVar[CurrentReplica | None] = contextvars.ContextVar(
    "sdk_local_replica", default=None
)

#: Marks a local replica as the one whose code runs in the current context.
set_current_replica = _current_replica.set


def build_local_application(
    application: serve.Application, name: str, make_router: Callable[[str], Any]
) -> tuple[Any, str]:
    """Return the deployments of an application and the name of its ingress deployment.

    Args:
        application: The application.
        name: Its name.
        make_router: Returns the router for a handle, for the name of a deployment.

    Returns:
        The deployments, each after those that it has handles to, with handles instead of bound deployments among
        their constructor arguments; and the name.
    """
    from ray.serve._private.build_app import build_app

    built = build_app(
        application,
        name=name,
        make_deployment_handle=lambda deployment, _: make_handle(deployment.name, name, make_router),
    )
    return built.deployments, built.ingress_deployment_name


def reset_batch_queues(cls: Any) -> None:
    """Reset the queues of a class's methods with ``@serve.batch``, so that they use the running event loop.

    Ray Serve keeps one queue per method and process, and it belongs to the loop that used it first.
    """
    for name in dir(cls):
        set_size = getattr(inspect.getattr_static(cls, name), "set_max_batch_size", None)
        if set_size is not None:
            set_size.__self__._queue = None


async def start_asgi_app(instance: Any) -> None:
    """Start the ASGI application of a class with ``@serve.ingress``, as Ray Serve does after the constructor.

    Its ``__del__`` waits for the end of the application, which never comes if it has not started.

    Raises:
        RuntimeError: The application fails to start.
    """
    if isinstance(instance, ASGIAppReplicaWrapper):
        await instance._run_asgi_lifespan_startup()  # type: ignore[no-untyped-call]  # it has no annotations


def cancel_batch_tasks(queues: Iterable[Any]) -> None:
    """Cancel the tasks of batch queues that are no longer used. Call this on their event loop.

    When a queue of Ray Serve is garbage collected, it asks for the thread's event loop, which may create one that is
    never closed.
    """
    for queue in queues:
        task, queue._handle_batch_task = queue._handle_batch_task, None  # without a task it does not ask for a loop
        if task is not None:
            task.cancel()


def make_handle(deployment: str, application: str, make_router: Callable[[str], Any]) -> Any:
    """Return a handle to a deployment in this process."""
    made: Any = serve.handle.DeploymentHandle(
        deployment,
        application,
        _create_router=lambda **_: make_router(deployment),  # type: ignore[arg-type]  # a LocalRouter, not one of Ray Serve's
    )
    # Overrides the environment, so that its responses can be awaited on any loop, and in threads without one.
    made._init(_run_router_in_separate_loop=True)
    made._sdk_router = make_router(deployment)
    return made


def _local_lookup(original: Any) -> Any:
    """Return a function that finds the state of a deployment of this process for a typed handle."""

    def lookup(handle: Any) -> Any:
        router = getattr(handle, "_sdk_router", None)
        if router is None and (local := _current_replica.get()) is not None:
            router = local.router_to(handle.app_name, handle.deployment_name)  # it was pickled
        return original(handle) if router is None and original is not None else router and router.state()

    return lookup


def make_replica_context(application: str, deployment: Any, instance: Any) -> Any:
    """Return Ray Serve's context of the only replica of a deployment."""
    from ray.serve._private.common import DeploymentID, ReplicaID
    from ray.serve.schema import ReplicaRank

    return serve_context.ReplicaContext(
        replica_id=ReplicaID("local", DeploymentID(deployment.name, application)),
        servable_object=instance,
        _deployment_config=deployment._deployment_config,
        rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
        world_size=1,
    )


def set_request_context(metadata: Any, application: str, request: str) -> None:
    """Set the request context of a call through a handle, as Ray Serve's replica does.

    Args:
        metadata: Ray Serve's metadata of the request.
        application: Name of the called application.
        request: The call's own id, under which the calls that it makes are kept.
    """
    set_context: Callable[[Any], Any] = serve_context._serve_request_context.set
    set_context(
        serve_context._RequestContext(
            route=metadata.route,
            request_id=metadata.request_id,
            _internal_request_id=request,
            app_name=application,
            multiplexed_model_id=metadata.multiplexed_model_id,
            grpc_context=metadata.grpc_context,
            cancel_on_parent_request_cancel=True,
        )
    )


class _LocalServeClient:
    """Replaces Ray Serve's client in local replicas: returns handles, and reports to no controller."""

    def get_handle(self, deployment: str, application: str, check_exists: bool = True) -> Any:
        current = _current_replica.get()
        assert current is not None
        return make_handle(deployment, application, lambda name: current.router_to(application, name))

    def record_request_routing_info(self, info: Any) -> None:
        """Do nothing: with one replica, routing does not depend on the models that it has loaded."""


_replaced: list[tuple[Any, str, Any]] = []
_users_of_replaced = 0
_replacing = threading.Lock()


@contextlib.contextmanager
def patch_serve() -> Iterator[None]:
    """Patch Ray Serve's functions so that they work in local replicas; elsewhere they behave as before.

    Without the patches, ``serve.get_replica_context()`` supports one replica per process, and a multiplexed model or an
    unpickled handle would start a Ray cluster.
    """
    global _users_of_replaced
    with _replacing:
        _users_of_replaced += 1
        if _users_of_replaced == 1:
            _replace()
    try:
        yield
    finally:
        with _replacing:
            _users_of_replaced -= 1
            while not _users_of_replaced and _replaced:
                setattr(*_replaced.pop())


def _replace() -> None:
    from ray.serve import api, batching, handle, multiplex
    from ray.serve._private import tracing_utils

    from sdk._channel import target

    for name, replace, modules in (
        ("_get_internal_replica_context", _replica_context, (serve_context, api, multiplex)),
        ("_get_global_client", _client, (api, multiplex)),
        ("create_router", _router, (handle,)),
        ("local_lookup", _local_lookup, (target,)),
        ("queue", _batch_queue, (batching._LazyBatchQueueWrapper,)),
        ("is_tracing_enabled", _passes_spans_on, (tracing_utils,)),
    ):
        for module in modules:
            original: Any = getattr(module, name)
            _replaced.append((module, name, original))
            setattr(module, name, replace(original))


def _replica_context(original: Any) -> Any:
    return lambda: original() if (local := _current_replica.get()) is None else local.context


def _client(original: Any) -> Any:
    return lambda *args, **kwargs: original(*args, **kwargs) if _current_replica.get() is None else _LocalServeClient()


def _passes_spans_on(original: Any) -> Any:
    """Let batches run in the spans of their first calls where the program makes spans, also if it does so later."""
    return lambda: original() or current.refresh() is not None


def _batch_queue(original: Any) -> Any:
    """Return a property with one queue per method and replica.

    Ray Serve keeps one queue per method and process, which would mix the calls of several replicas.
    """

    def queue(wrapper: Any) -> Any:
        if (local := _current_replica.get()) is None:
            return original.fget(wrapper)
        if wrapper not in local.batch_queues:
            fresh = copy.copy(wrapper)
            fresh._queue = None
            local.batch_queues[wrapper] = original.fget(fresh)
        found = local.batch_queues[wrapper]
        # The setters of these options change only Ray Serve's own queue, so copy the current values.
        found.set_max_batch_size(wrapper.max_batch_size)
        found.batch_wait_timeout_s = wrapper.batch_wait_timeout_s
        return found

    return property(queue)


def _router(original: Any) -> Any:
    def create_router(handle_id: Any, deployment_id: Any, handle_options: Any, **more: Any) -> Any:
        if (local := _current_replica.get()) is None:
            return original(handle_id, deployment_id, handle_options, **more)
        object.__setattr__(handle_options, "_run_router_in_separate_loop", True)  # as in make_handle
        return local.router_to(deployment_id.app_name, deployment_id.name)

    return create_router
