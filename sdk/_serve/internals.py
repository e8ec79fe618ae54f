"""Private API of Ray Serve that the SDK uses; ``sdk/testing/_serve_patches.py`` has that of the test server.

Checked with Ray Serve 2.60. If an upgrade of Ray breaks the SDK, the fix belongs here.
"""

from __future__ import annotations

import builtins
import logging
import logging.handlers
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray._common.filters import CoreContextFilter
from ray.serve import context as serve_context
from ray.serve import get_replica_context
from ray.serve._private import logging_utils, tracing_utils
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app
from ray.serve._private.common import (
    RUNNING_REQUESTS_KEY,
    DeploymentHandleSource,
    HandleMetricReport,
    ServeComponentType,
    TimeStampedValue,
)
from ray.serve._private.constants import (
    REQUEST_LATENCY_BUCKETS_MS,
    SERVE_CONTROLLER_NAME,
    SERVE_LOG_APPLICATION,
    SERVE_LOG_COMPONENT,
    SERVE_LOG_DEPLOYMENT,
    SERVE_LOG_RECORD_FORMAT,
    SERVE_LOG_REPLICA,
    SERVE_LOG_REQUEST_ID,
    SERVE_LOGGER_NAME,
    SERVE_NAMESPACE,
)
from ray.serve._private.router import SingletonThreadRouter
from ray.serve.api import RunTarget, _run_many
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ServeApplicationSchema,
    gRPCOptionsSchema,
)

from sdk._ingress.serve_link import ServeLink
from sdk._serve.ray_connection import ray_errors
from sdk.context import leave_call_for_batches

if TYPE_CHECKING:
    from ray.serve.schema import ServeDeploySchema

    from sdk._wire.call import Call

#: Upper bounds of the buckets of latencies, in milliseconds (``RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS``).
LATENCY_BOUNDS_MS: Sequence[float] = REQUEST_LATENCY_BUCKETS_MS

_UNSET_BY_SERVE: Any = serve_context._unset_request_context

# Makes request ids unique across processes: a replica that is called through handles keeps the requests of many
# callers under the ids that the callers chose.
_PROCESS = uuid.uuid4().hex


def deployment_config() -> Any:
    """Return the current configuration of the replica in this process, with the last change by Ray Serve."""
    return get_replica_context()._deployment_config


def build_configured(target: Any, args: dict[str, Any]) -> Any:
    """Return the application that a config file names: it, or what its builder function returns.

    Args:
        target: An application, or a function that builds one.
        args: The arguments in the file.
    """
    return call_user_app_builder_with_args_if_necessary(target, args)


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


def deploy_application(application: Any, name: str) -> Any:
    """Deploy an application, as ``serve.run`` does, without waiting until it runs.

    Args:
        application: A ``ray.serve.Application``.
        name: The application's name.

    Returns:
        The handle of its ingress deployment.
    """
    target = RunTarget(application, name=name, route_prefix=None)
    return _run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)[0]


#: Ray Serve for the ingress controller.
SERVE_LINK = ServeLink(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE, "ray.serve._private.controller")


def find_serve_controller() -> Any | None:
    """Return a handle to Ray Serve's controller, or None when Ray Serve does not run; a restarting one runs."""
    return SERVE_LINK.find_controller()


def drop_stale_serve_client() -> None:
    """Drop this process's client of a Ray Serve that another process has shut down, perhaps to start it again.

    Ray Serve caches one client in each process; without this, the process would keep calling the old controller.
    """
    client: Any = serve_context._global_client
    if client is not None:
        controller = find_serve_controller()
        if controller is None or controller._actor_id != client._controller._actor_id:
            serve_context._set_global_client(None)  # type: ignore[no-untyped-call]


def _serve_client() -> Any | None:
    """Return this process's client of Ray Serve, or None when Ray Serve does not run."""
    client: Any = serve_context._get_global_client(raise_if_no_controller_running=False)
    return client


def application_overviews() -> dict[str, ApplicationStatusOverview]:
    """Return ``serve.status().applications`` without what that costs: 10 ms of CPU time and more for each deployment.

    It validates the configuration of each, which imports and pickles the class of the request router.

    Raises:
        ray.exceptions.RayError: Ray Serve does not answer.
        ray.serve.exceptions.RayServeException: Ray Serve has been shut down meanwhile.
    """
    client = _serve_client()
    if client is None:
        return {}
    return {
        name: ApplicationStatusOverview(
            status=application["status"],
            message=application["message"],
            last_deployed_time_s=application["last_deployed_time_s"],
            deployments={
                deployment_name: DeploymentStatusOverview(
                    status=deployment["status"],
                    status_trigger=deployment["status_trigger"],
                    replica_states=dict(Counter(replica["state"] for replica in deployment["replicas"])),
                    message=deployment["message"],
                )
                for deployment_name, deployment in application["deployments"].items()
            },
        )
        for name, application in client.get_serve_details()["applications"].items()
    }


def application_states() -> dict[str, ApplicationStatus]:
    """Return the state of each application: cheap enough to ask often, at Ray Serve's controller too.

    Raises:
        ray.exceptions.RayError: Ray Serve does not answer.
        ray.serve.exceptions.RayServeException: Ray Serve has been shut down meanwhile.
    """
    client = _serve_client()
    return {} if client is None else {found.name: found.app_status.status for found in client.list_serve_statuses()}


def application_overview(name: str) -> ApplicationStatusOverview | None:
    """Return one of :func:`application_overviews` without ``replica_states``; None for an application that is unknown.

    It costs the same however many applications run, and is cheap enough to ask often.

    Raises:
        ray.exceptions.RayError: Ray Serve does not answer.
        ray.serve.exceptions.RayServeException: Ray Serve has been shut down meanwhile.
    """
    client = _serve_client()
    found = None if client is None else client.get_serve_status(name)
    if found is None or found.app_status.status is ApplicationStatus.NOT_STARTED:  # its state for unknown names
        return None
    return ApplicationStatusOverview(
        status=found.app_status.status,
        message=found.app_status.message,
        last_deployed_time_s=found.app_status.deployment_timestamp,
        deployments={
            each.name: DeploymentStatusOverview(
                status=each.status, status_trigger=each.status_trigger, replica_states={}, message=each.message
            )
            for each in found.deployment_statuses
        },
    )


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Options that Ray Serve was started with, and the applications that were deployed from config files.

    Attributes:
        proxy_location: Nodes with Ray Serve's own proxies: ``"EveryNode"``, ``"HeadOnly"`` or ``"Disabled"``.
        grpc_port: Port of Ray Serve's own gRPC proxy.
        grpc_request_timeout_s: That proxy's time limit for a call, in seconds, or None.
        has_grpc_proxy: True if that proxy runs: only with ``grpc_servicer_functions``.
        config_applications: The applications of its config API (``serve deploy`` or the REST API), as submitted.
        target_capacity: Percentage of the replicas that the config asks for, or None.
    """

    proxy_location: str
    grpc_port: int
    grpc_request_timeout_s: float | None
    has_grpc_proxy: bool
    config_applications: tuple[ServeApplicationSchema, ...]
    target_capacity: float | None = None


def serve_settings(controller: Any, timeout_s: float) -> ServeSettings:
    """Return the options that Ray Serve was started with, and the applications of its config API.

    Args:
        controller: The result of :func:`find_serve_controller`.
        timeout_s: Seconds to wait for its answer.

    Raises:
        ray.exceptions.RayError: Ray Serve does not answer.
    """
    details = ray.get(controller.get_serve_instance_details.remote(), timeout=timeout_s)
    grpc = gRPCOptionsSchema.model_validate(details.get("grpc_options") or {})  # has only the options that were set
    location = details.get("proxy_location") or "EveryNode"
    configs = [details["applications"][name].get("deployed_app_config") for name in sorted(details["applications"])]
    return ServeSettings(
        str(getattr(location, "value", location)),
        grpc.port,
        grpc.request_timeout_s,
        bool(grpc.grpc_servicer_functions) and location != "Disabled",
        tuple(ServeApplicationSchema.model_validate(config) for config in configs if config),
        details.get("target_capacity"),
    )


def apply_config(controller: Any, schema: ServeDeploySchema) -> None:
    """Submit a config to Ray Serve, as ``serve deploy`` and the REST API do.

    Ray Serve deletes every application of an earlier config that this one does not name.

    Args:
        controller: The result of :func:`find_serve_controller`.
        schema: The whole config.

    Raises:
        ray.exceptions.RayError: Ray Serve rejects the config, or does not answer.
    """
    ray.get(controller.apply_config.remote(schema))


def request_deletion(controller: Any, names: Sequence[str]) -> None:
    """Ask Ray Serve to delete applications; return when it has begun."""
    with ray_errors("Ray Serve failed"):
        ray.get(controller.delete_apps.remote(list(names)))


class _GaugeWithCalls:
    """Ray Serve's gauge of ongoing requests, with the calls of a wire server added.

    Args:
        gauge: The gauge, which Ray Serve sets to the number of its requests.
        count_calls: Returns the number of calls.
    """

    def __init__(self, gauge: Any, count_calls: Callable[[], int]) -> None:
        self._gauge, self._count_calls = gauge, count_calls

    def set(self, value: float, *args: Any, **options: Any) -> None:
        self._gauge.set(value + self._count_calls(), *args, **options)


def add_to_processing_queries(count_calls: Callable[[], int]) -> bool:
    """Let ``serve_replica_processing_queries`` of this replica count calls too. Return False if that can't be done.

    Ray Serve sets the gauge ten times a second, by default, from a number that also limits and scales the replica: the
    gauge is replaced, and not the number.

    Args:
        count_calls: Returns the number of calls that run.
    """
    actor_id = ray.get_runtime_context().get_actor_id()
    worker: Any = ray._private.worker.global_worker
    for known, actor in worker.actors.items():
        if known.hex() == actor_id:
            manager: Any = getattr(getattr(actor, "_replica_impl", None), "_metrics_manager", None)
            gauge = getattr(manager, "_num_ongoing_requests_gauge", None)
            if gauge is not None:
                manager._num_ongoing_requests_gauge = _GaugeWithCalls(gauge, count_calls)
                return True
    return False


def report_ongoing_calls(controller: Any, points: Sequence[tuple[float, float]]) -> None:
    """Report to Ray Serve's autoscaler how many calls this replica had at each of some points in time.

    The report has the form of a deployment handle's report of its running requests, so that Ray Serve's default policy
    counts the calls.

    Args:
        controller: The result of :func:`find_serve_controller`.
        points: Pairs of seconds since the epoch and a number of calls.
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


def logs_accesses() -> bool:
    """Return True if Ray Serve's logging configuration writes a line for each request anywhere."""
    logger = logging.getLogger(SERVE_LOGGER_NAME)
    # ``enable_access_log=False`` of the configuration is a filter of each handler.
    return logger.isEnabledFor(logging.INFO) and any(
        logging_utils.log_access_log_filter not in handler.filters for handler in logger.handlers
    )


def file_of(handler: logging.Handler) -> logging.StreamHandler[Any] | None:
    """Return the handler that writes the records of one of Ray Serve's handlers; None for a handler of another kind."""
    if type(handler) is logging.handlers.MemoryHandler:
        handler = handler.target  # type: ignore[assignment]  # Ray Serve sets one
    known = (logging.StreamHandler, logging.handlers.RotatingFileHandler)
    return handler if type(handler) in known else None  # type: ignore[return-value]  # these are


class _CallFormatter(logging.Formatter):
    """Ray Serve's text, with method and trace id of the call after the request id.

    Ray Serve puts the attributes of ``additional_log_standard_attrs`` there.

    Args:
        serve: Ray Serve's formatter.
    """

    def __init__(self, serve: logging_utils.ServeFormatter) -> None:
        super().__init__()
        self._serve = serve
        self._with: dict[tuple[str, ...], logging.Formatter] = {}

    def format(self, record: logging.LogRecord) -> str:
        fields = record.__dict__
        # The line of a call has its method as the route, and in its message.
        wanted = ("trace_id",) if "route" in fields else ("method", "trace_id")
        names = tuple(name for name in wanted if fields.get(name))
        if not names or SERVE_LOG_REQUEST_ID not in fields:
            return self._serve.format(record)
        formatter = self._with.get(names)
        if formatter is None:
            attributes = [SERVE_LOG_RECORD_FORMAT[SERVE_LOG_REQUEST_ID], *(f"%({name})s" for name in names)]
            formatter = self._with[names] = self._serve._create_formatter(attributes)
        return formatter.format(record)


def add_to_logs(call_filter: logging.Filter) -> None:
    """Let Ray Serve's handlers write the attributes ``method`` and ``trace_id`` of records.

    In JSON they write all attributes. Ray Serve makes new handlers when its logging configuration changes.

    Args:
        call_filter: Sets these attributes.
    """
    for handler in logging.getLogger(SERVE_LOGGER_NAME).handlers:
        if call_filter not in handler.filters:
            handler.addFilter(call_filter)
        written = file_of(handler)
        if written is not None and type(written.formatter) is logging_utils.ServeFormatter:
            written.setFormatter(_CallFormatter(written.formatter))


def access_log_context() -> dict[str, Any]:
    """Return the attributes that the line of every request has in this replica, for Ray Serve's filters and formats."""
    replica = get_replica_context().replica_id
    core = CoreContextFilter.get_ray_core_logging_context()
    return {
        **{key: value for key, value in core.items() if key not in CoreContextFilter.TASK_LEVEL_LOG_KEYS},
        SERVE_LOG_APPLICATION: replica.deployment_id.app_name,
        SERVE_LOG_DEPLOYMENT: replica.deployment_id.name,
        SERVE_LOG_REPLICA: replica.unique_id,
        SERVE_LOG_COMPONENT: ServeComponentType.REPLICA,
        "skip_context_filter": True,
        "serve_access_log": True,
    }


def repair_redirected_print() -> None:
    """Make Ray Serve's redirected ``print`` write text to files, such as the text of a traceback, and not tuples.

    Ray Serve redirects ``print`` in replicas with ``RAY_SERVE_LOG_TO_STDERR=0``. Its own function passes the arguments
    for a file as one tuple, and ``logging`` formats each traceback by way of such a file.
    """
    redirected, original = logging_utils.redirected_print, logging_utils.buildin_print
    if builtins.print is not redirected:
        return

    def print_to_log_or_file(*values: Any, file: Any = None, sep: str | None = None, **options: Any) -> None:
        if file in (None, sys.stdout, sys.stderr):
            redirected(*values, sep=" " if sep is None else sep, **options)
        else:
            original(*values, sep=sep, file=file, **options)

    builtins.print = print_to_log_or_file


def request_context_setter(application: str) -> Callable[[Call], None]:
    """Return a function that sets Ray Serve's request context for a call.

    The context makes ``serve.get_multiplexed_model_id()``, ``@serve.multiplexed``, ``@serve.batch`` and deployment
    handles behave in a handler as they do behind Ray Serve's own proxies.

    Args:
        application: Name of the application.
    """

    class CallContext(serve_context._RequestContext):
        """Ray Serve's request context, read from the call on first use: most handlers never use it."""

        app_name = application
        cancel_on_parent_request_cancel = True  # else Ray Serve does not track the requests that the call awaits
        request_id = property(lambda self: self.__dict__["call"].request_id)
        _internal_request_id = property(lambda self: internal_request_id(self.__dict__["call"]))

        @property
        def multiplexed_model_id(self) -> str:
            call: Call = self.__dict__["call"]
            model = call.header(b"multiplexed_model_id") or ""
            if model and "is_counted" not in self.__dict__:  # once a call, and only where a handler asks
                self.__dict__["is_counted"] = True
                call.host.models.add(model)
            return model

    leave_calls_in_batches()
    set_context: Callable[[Any], Any] = serve_context._serve_request_context.set
    make = object.__new__

    def enter(call: Call) -> None:
        context = make(CallContext)  # skips the frozen dataclass's constructor, which sets every field
        context.__dict__["call"] = call
        set_context(context)

    return enter


def leave_calls_in_batches() -> None:
    """Make the task that runs the batches of ``@serve.batch`` leave the call whose handler has created it.

    The first call of a batched method creates that task, which inherits its context variables and runs the batches of
    all later calls. Ray Serve unsets its own request context there, and nothing else.
    """
    unset: Any = serve_context._unset_request_context
    if unset is _UNSET_BY_SERVE:

        def unset_both() -> None:
            unset()
            leave_call_for_batches()
            leave_trace()

        serve_context._unset_request_context = unset_both


def leave_trace() -> None:
    """Leave the current span: this task outlives it."""
    context = sys.modules.get("opentelemetry.context")
    if context is not None:
        context.attach(context.Context())


def trace_batches() -> None:
    """Let Ray Serve pass spans on: to the batches of ``@serve.batch``, and over its handles.

    Each batch then runs in the context of its first call. Ray Serve does so only if it has set the tracer provider.
    """
    tracing_utils._tracing_enabled = True


def internal_request_id(call: Call) -> str:
    """Return the id under which Ray Serve keeps the requests that a call awaits.

    Clients choose request ids, so two calls may share one; this id is unique. It contains the call's address: whatever
    awaits such a request holds the call's context and so the call, and its address is not reused before.
    """
    return f"{_PROCESS}-{id(call):x}"


def current_metadata() -> list[tuple[str, str | bytes]]:
    """Return the client's metadata in Ray Serve's request context, with the request id; empty outside of a request."""
    context = serve_context._get_serve_request_context()
    pairs: list[tuple[str, str | bytes]] = []
    if context.grpc_context is not None:
        pairs += context.grpc_context.invocation_metadata()
    return [*pairs, ("request_id", context.request_id)] if context.request_id else pairs


def cancel_child_requests(call: Call) -> None:
    """Cancel the requests that a cancelled call awaits on other deployments' handles, as Ray Serve's replica does."""
    # Ray Serve's routers run on a separate event loop by default.
    loop = SingletonThreadRouter._asyncio_loop or call.host.loop
    # One turn of that loop later: a request that was sent through a handle just before is registered there by then.
    loop.call_soon_threadsafe(loop.call_soon, _cancel_child_requests, call)


def _cancel_child_requests(call: Call) -> None:
    parent = internal_request_id(call)
    for task in list(serve_context._get_requests_pending_assignment(parent).values()):
        task.cancel()
    in_flight = serve_context._get_in_flight_requests(parent)  # type: ignore[no-untyped-call]
    for result in list(in_flight.values()):
        result.cancel()
