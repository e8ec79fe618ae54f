"""What applications without a cluster (``sdk/testing/_local_app.py``) use of Ray Serve beyond its public API.

As with ``internals.py``: checked with Ray Serve 2.60, and if an upgrade breaks something, it breaks here.
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


class HostedReplica(Protocol):
    """What stands for a replica in this process, as far as Ray Serve's own code is concerned."""

    @property
    def context(self) -> Any:
        """What ``serve.get_replica_context()`` returns in its code."""

    batch_queues: dict[Any, Any]
    """What the replica's methods under ``@serve.batch`` gather in."""

    def router_to(self, application: str, deployment: str) -> Any:
        """Return what calls of a handle to a deployment go through."""


_local_replica: contextvars.ContextVar[HostedReplica | None] = contextvars.ContextVar("sdk_local_replica", default=None)

#: Marks a replica of this process as the one whose code runs in the current context.
enter_local_replica = _local_replica.set


def build_local(application: serve.Application, name: str, make_router: Callable[[str], Any]) -> tuple[Any, str]:
    """Return the deployments of an application, those first that others have handles to, and the name of the ingress.

    Bound deployments among constructor arguments have been replaced by handles.

    Args:
        application: The application.
        name: Its name.
        make_router: Returns what calls of a handle go through, for the name of a deployment.
    """
    from ray.serve._private.build_app import build_app

    built = build_app(
        application,
        name=name,
        make_deployment_handle=lambda deployment, _: make_handle(deployment.name, name, make_router),
    )
    return built.deployments, built.ingress_deployment_name


def forget_batches(cls: Any) -> None:
    """Let the methods of a class under ``@serve.batch`` gather anew, on the event loop that runs now.

    Ray Serve keeps one queue for each such method and process, which belongs to the loop that used it first.
    """
    for name in dir(cls):
        set_size = getattr(inspect.getattr_static(cls, name), "set_max_batch_size", None)
        if set_size is not None:
            set_size.__self__._queue = None


def end_batches(queues: Iterable[Any]) -> None:
    """End the tasks of batch queues that nobody uses any more; on their loop.

    What drops a queue of Ray Serve asks for the event loop of its thread, which may make one there that nobody closes.
    """
    for queue in queues:
        task, queue._handle_batch_task = queue._handle_batch_task, None  # without one it asks for no loop
        if task is not None:
            task.cancel()


def make_handle(deployment: str, application: str, make_router: Callable[[str], Any]) -> Any:
    """Return a handle to a deployment in this process."""
    made: Any = serve.handle.DeploymentHandle(
        deployment,
        application,
        _create_router=lambda **_: make_router(deployment),  # type: ignore[arg-type]  # it is none of Ray Serve's
    )
    # Whatever the environment says: its responses can be waited for on any loop, and in threads without one.
    made._init(_run_router_in_separate_loop=True)
    return made


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


def enter_local_request(metadata: Any, application: str, request: str) -> None:
    """Give a call through a handle its request context, as Ray Serve's replica does.

    Args:
        metadata: What the handle says of the call.
        application: Name of the application that is called.
        request: The call's own id: calls that it makes are kept under it.
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


class _NoController:
    """What local replicas have in place of Ray Serve's client: it knows the handles, and nobody to report to."""

    def get_handle(self, deployment: str, application: str, check_exists: bool = True) -> Any:
        current = _local_replica.get()
        assert current is not None
        return make_handle(deployment, application, lambda name: current.router_to(application, name))

    def record_request_routing_info(self, info: Any) -> None:
        """Which models a replica has loaded is of no interest: there is no other."""


_replaced: list[tuple[Any, str, Any]] = []
_users_of_replaced = 0
_replacing = threading.Lock()


@contextlib.contextmanager
def local_serve() -> Iterator[None]:
    """Let Ray Serve's functions work in local replicas; everywhere else they stay what they are.

    Without it ``serve.get_replica_context()`` knows one replica a process, and a multiplexed model or a handle that
    was pickled would start a Ray cluster.
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

    for name, replace, modules in (
        ("_get_internal_replica_context", _replica_context, (serve_context, api, multiplex)),
        ("_get_global_client", _client, (api, multiplex)),
        ("create_router", _router, (handle,)),
        ("queue", _batch_queue, (batching._LazyBatchQueueWrapper,)),
    ):
        for module in modules:
            original: Any = getattr(module, name)
            _replaced.append((module, name, original))
            setattr(module, name, replace(original))


def _replica_context(original: Any) -> Any:
    return lambda: original() if (local := _local_replica.get()) is None else local.context


def _client(original: Any) -> Any:
    return lambda *args, **kwargs: original(*args, **kwargs) if _local_replica.get() is None else _NoController()


def _batch_queue(original: Any) -> Any:
    """Ray Serve keeps one queue for each method and process: it would mix the calls of several replicas."""

    def queue(kept: Any) -> Any:
        if (local := _local_replica.get()) is None:
            return original.fget(kept)
        if kept not in local.batch_queues:
            fresh = copy.copy(kept)
            fresh._queue = None
            local.batch_queues[kept] = original.fget(fresh)
        found = local.batch_queues[kept]
        # As they were set last: what sets them knows one queue only.
        found.set_max_batch_size(kept.max_batch_size)
        found.batch_wait_timeout_s = kept.batch_wait_timeout_s
        return found

    return property(queue)


def _router(original: Any) -> Any:
    def create_router(handle_id: Any, deployment_id: Any, handle_options: Any, **more: Any) -> Any:
        if (local := _local_replica.get()) is None:
            return original(handle_id, deployment_id, handle_options, **more)
        object.__setattr__(handle_options, "_run_router_in_separate_loop", True)  # as in make_handle
        return local.router_to(deployment_id.app_name, deployment_id.name)

    return create_router
