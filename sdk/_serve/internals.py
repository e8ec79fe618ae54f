"""What the SDK uses of Ray Serve beyond its public API; for applications without a cluster, ``local_internals.py``.

Checked with Ray Serve 2.60. If an upgrade breaks something, it breaks here.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.serve import Application, Deployment, get_replica_context
from ray.serve import context as serve_context
from ray.serve._private.build_app import build_app
from ray.serve._private.common import RUNNING_REQUESTS_KEY, DeploymentHandleSource, HandleMetricReport, TimeStampedValue
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.router import SingletonThreadRouter
from ray.serve.schema import ServeApplicationSchema, gRPCOptionsSchema

from sdk.handles import ServiceHandle

if TYPE_CHECKING:
    from ray.serve.schema import ServeDeploySchema

    from sdk._wire.call import Call

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
        elif isinstance(value, ServiceHandle):
            look(value._handle)
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


def find_serve() -> Any | None:
    """Return a handle to Ray Serve's controller, or None when Ray Serve does not run. While it restarts, it runs."""
    try:
        return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return None


def forget_gone_serve() -> None:
    """Let this process find a Ray Serve that others have shut down and started again; else it asks the old one."""
    client: Any = serve_context._global_client
    if client is not None:
        controller = find_serve()
        if controller is None or controller._actor_id != client._controller._actor_id:
            serve_context._set_global_client(None)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What Ray Serve was started with, and what was deployed from config files.

    Attributes:
        proxy_location: ``"EveryNode"``, ``"HeadOnly"`` or ``"Disabled"``: where its own proxies run.
        grpc_port: Port of its own gRPC proxy.
        grpc_request_timeout_s: That proxy's limit, or None.
        has_grpc_proxy: Whether that proxy runs: only with ``grpc_servicer_functions``.
        declared: The applications of its declarative API, as they were given.
        target_capacity: The percentage of the replicas that a config asked for, or None.
    """

    proxy_location: str
    grpc_port: int
    grpc_request_timeout_s: float | None
    has_grpc_proxy: bool
    declared: tuple[ServeApplicationSchema, ...]
    target_capacity: float | None = None


def serve_settings(controller: Any, patience_s: float) -> ServeSettings:
    """Return what Ray Serve was started with.

    Args:
        controller: What :func:`find_serve` returned.
        patience_s: Seconds to wait for it.

    Raises:
        ray.exceptions.RayError: It does not answer.
    """
    details = ray.get(controller.get_serve_instance_details.remote(), timeout=patience_s)
    grpc = gRPCOptionsSchema.model_validate(details.get("grpc_options") or {})  # only what was set is there
    location = details.get("proxy_location") or "EveryNode"
    declared = [details["applications"][name].get("deployed_app_config") for name in sorted(details["applications"])]
    return ServeSettings(
        str(getattr(location, "value", location)),
        grpc.port,
        grpc.request_timeout_s,
        bool(grpc.grpc_servicer_functions) and location != "Disabled",
        tuple(ServeApplicationSchema.model_validate(config) for config in declared if config),
        details.get("target_capacity"),
    )


def deploy_declared(controller: Any, schema: ServeDeploySchema) -> None:
    """Hand a config to Ray Serve, as ``serve deploy`` and the REST API do. What it does not name is deleted.

    Args:
        controller: What :func:`find_serve` returned.
        schema: The whole config.

    Raises:
        ray.exceptions.RayError: Ray Serve refuses it, or does not answer.
    """
    ray.get(controller.apply_config.remote(schema))


def delete_now(controller: Any, names: Sequence[str]) -> None:
    """Tell Ray Serve to delete applications, without waiting for it."""
    controller.delete_apps.remote(list(names))


def report_running(controller: Any, points: Sequence[tuple[float, float]]) -> None:
    """Tell Ray Serve's autoscaling how many calls this replica had at some moments.

    As a deployment handle reports what it has sent to a replica: so Ray Serve's default policy counts them.

    Args:
        controller: What :func:`find_serve` returned.
        points: Seconds since the epoch, and a number of calls.
    """
    replica = get_replica_context().replica_id
    controller.record_autoscaling_metrics_from_handle.remote(
        HandleMetricReport(
            deployment_id=replica.deployment_id,
            handle_id=f"grpc-{replica.unique_id}",
            actor_id=ray.get_runtime_context().get_actor_id() or "",
            handle_source=DeploymentHandleSource.REPLICA,
            queued_requests=[],
            metrics={RUNNING_REQUESTS_KEY: {replica.to_full_id_str(): [TimeStampedValue(*point) for point in points]}},
            timestamp=points[-1][0],
        )
    )


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
    loop = SingletonThreadRouter._asyncio_loop or call.host.loop
    # Once around that loop: what was sent through a handle just before is known there by then.
    loop.call_soon_threadsafe(loop.call_soon, _cancel_child_requests, call)


def _cancel_child_requests(call: Call) -> None:
    parent = internal_request_id(call)
    for task in list(serve_context._get_requests_pending_assignment(parent).values()):
        task.cancel()
    in_flight = serve_context._get_in_flight_requests(parent)  # type: ignore[no-untyped-call]
    for result in list(in_flight.values()):
        result.cancel()
