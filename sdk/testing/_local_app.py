"""Run an application in this process, without Ray: one replica per deployment, and the handles between them.

Used by ``sdk.testing``. Hooks are called as Ray Serve calls them: the constructor (it may be async), ``reconfigure``
when there is a ``user_config``, ``check_health`` once, and ``__del__`` at the end. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from types import MethodType
from typing import TYPE_CHECKING, Any

from sdk._channel.feed import State
from sdk._contract.definition import definition_of
from sdk._serve.application import deployment_of_instance, require_application
from sdk._serve.checked_methods import checked_methods
from sdk._serve.deployed_classes import SERVED_SERVICES
from sdk._serve.hooks import call_hook, finish_hook
from sdk._serve.internals import internal_request_id, request_context_setter
from sdk.errors import OptionsError
from sdk.testing._local_calls import ChildCalls, LocalCalls, LocalRouter, unknown_method
from sdk.testing._serve_patches import (
    build_local_application,
    cancel_batch_tasks,
    make_handle,
    make_replica_context,
    reset_batch_queues,
    set_current_replica,
    start_asgi_app,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sdk._contract.definition import Definition
    from sdk._wire.call import Call

logger = logging.getLogger("sdk.testing")


class LocalReplica:
    """The one replica of a deployment.

    Args:
        applications: All applications of this process by name, for handles.
        application: Name of the replica's application.
        deployment: Ray Serve's ``Deployment``, with handles instead of bound deployments among its constructor
            arguments.
        loop: The event loop that its code runs on.
        children: Parents of the calls through handles.
        instance: The instance, if it exists already; by default it is created from the deployment's class.
    """

    def __init__(
        self,
        applications: Mapping[str, LocalApplication],
        application: str,
        deployment: Any,
        loop: asyncio.AbstractEventLoop,
        children: ChildCalls,
        instance: Any = None,
    ) -> None:
        self._applications = applications
        self.application = application
        self.deployment = deployment
        self.name: str = deployment.name
        self.loop = loop
        self.children = children
        self.cls: Any = _user_class(deployment.func_or_class) if instance is None else type(instance)
        self._is_class = isinstance(self.cls, type)  # else a function, which handles call
        self.definition: Definition | None = definition_of(self.cls)
        self._checked = checked_methods(self.cls, self.definition) if self.definition is not None else {}
        self._owns_instance = instance is None
        self.instance = instance
        self.context: Any = make_replica_context(application, deployment, instance)
        self.batch_queues: dict[Any, Any] = {}
        self._set_request_context = request_context_setter(application)
        self.calls: LocalCalls
        # For typed handles. Until its wire server listens, Ray Serve's carry their calls. Unique in this process.
        self.state = State(f"{id(applications)}/{application}", self.name, is_known=False)

    @property
    def is_exposed(self) -> bool:
        """True if clients can call it."""
        if self._owns_instance:
            return hasattr(self.deployment.func_or_class, SERVED_SERVICES)
        return self.definition is not None and bool(self.definition.options.get("expose", True))

    async def start(self) -> None:
        """Create the instance.

        Raises:
            Exception: The exception of its constructor, ``reconfigure`` or ``check_health``.
            OptionsError: There is a ``user_config`` and no ``reconfigure``.
        """
        self.calls = LocalCalls(self)
        self.enter()
        if not self._is_class:
            self.instance = self.cls
            return
        if self._owns_instance:
            reset_batch_queues(self.cls)
            # As Ray Serve does, for async constructors.
            self.instance = self.context.servable_object = self.cls.__new__(self.cls)
            await finish_hook(self.instance.__init__(*self.deployment.init_args, **self.deployment.init_kwargs))
            await start_asgi_app(self.instance)
        await self._reconfigure()
        check_health = getattr(self.instance, "check_health", None)
        if check_health is not None:
            await call_hook(check_health)

    async def _reconfigure(self) -> None:
        config = self.deployment.user_config
        reconfigure = getattr(self.instance, "reconfigure", None)
        takes_rank = reconfigure is not None and "rank" in inspect.signature(reconfigure).parameters
        if config is None and not takes_rank:
            return
        if reconfigure is None:
            raise OptionsError(f"{self.name}: there is a user_config, and the class has no method `reconfigure`")
        await call_hook(reconfigure, config, **({"rank": self.context.rank} if takes_rank else {}))

    async def stop(self) -> None:
        """End its calls and call its ``__del__``, whose exceptions are logged."""
        self.enter()
        try:
            await self._end()
        finally:
            cancel_batch_tasks(self.batch_queues.values())

    async def _end(self) -> None:
        if hasattr(self, "calls"):
            await self.calls.stop()
        if not self._is_class or not self._owns_instance or self.instance is None:
            return  # the test owns an instance that it passed in
        try:
            if hasattr(self.instance, "__del__"):
                await finish_hook(self.instance.__del__())
            models = getattr(self.instance, "__serve_multiplex_wrapper", None)
            if models is not None:
                await models.shutdown()
        except Exception:
            logger.exception("%s.__del__ failed", self.cls.__name__)
        finally:
            _forget_destructor(self.instance)

    def enter(self) -> None:
        """Mark this replica as the one whose code runs in the current context."""
        set_current_replica(self)

    def enter_call(self, call: Call) -> None:
        """Set Ray Serve's replica context and request context for a gRPC call."""
        set_current_replica(self)
        self._set_request_context(call)

    def leave_call(self, call: Call) -> None:
        """Cancel the requests that a cancelled gRPC call awaits on other deployments' handles."""
        self.children.cancel(internal_request_id(call))

    def method(self, name: str) -> Any:
        """Return the method that a handle calls, or the function that is deployed.

        Raises:
            RayServeException: There is no such method.
        """
        if not self._is_class:
            return self.instance
        if name in self._checked:
            return MethodType(self._checked[name], self.instance)
        method = getattr(self.instance, name, None)
        if method is None:
            raise unknown_method(name, self.instance)
        return method

    def router_to(self, application: str, deployment: str) -> LocalRouter:
        """Return the router for a handle to another deployment."""
        known = self._applications.get(application)
        return known.router(deployment) if known is not None else LocalRouter(_unknown(application, deployment))


class LocalApplication:
    """An application and its replicas.

    Args:
        target: The result of ``bind``, or an instance of a decorated class.
        name: The application's name.
        applications: All applications of this process by name, with this one, for handles.
        loop: The event loop that its code runs on.
        children: Parents of the calls through handles, in all applications.

    Raises:
        ApplicationError: ``target`` is not an application.
    """

    def __init__(
        self,
        target: Any,
        name: str,
        applications: Mapping[str, LocalApplication],
        loop: asyncio.AbstractEventLoop,
        children: ChildCalls,
    ) -> None:
        self.name = name
        instance = None
        definition = definition_of(type(target))
        if definition is not None:
            instance, self._ingress = target, definition.options.get("name", definition.cls_name)
            deployments: Any = [deployment_of_instance(definition)]
        else:
            application = require_application(target, f"Application {name!r}")
            deployments, self._ingress = build_local_application(application, name, self.router)
        self.replicas = {
            deployment.name: LocalReplica(applications, name, deployment, loop, children, instance)
            for deployment in deployments
        }

    def router(self, deployment: str) -> LocalRouter:
        """Return the router for a handle to one of its deployments."""
        return LocalRouter(
            lambda: self.replicas[deployment] if deployment in self.replicas else _unknown(self.name, deployment)()
        )

    @property
    def handle(self) -> Any:
        """A handle to its ingress deployment."""
        return make_handle(self._ingress, self.name, self.router)


def _unknown(application: str, deployment: str) -> Callable[[], LocalReplica]:
    def find() -> LocalReplica:
        raise KeyError(f"deployment {deployment!r} of application {application!r} is not served here")

    return find


def _user_class(deployed: Any) -> Any:
    """Return the decorated class of a class that ``bind`` derived from it for a replica."""
    if isinstance(deployed, type):
        return next((cls for cls in deployed.__mro__ if definition_of(cls) is not None), deployed)
    return deployed


def _forget_destructor(instance: Any) -> None:
    """Keep Python from calling ``__del__`` a second time: it would also never await an async one."""
    cls = type(instance)
    if hasattr(cls, "__del__"):
        with contextlib.suppress(TypeError):  # Python can't change the class of some layouts
            instance.__class__ = type(
                cls.__name__, (cls,), {"__slots__": (), "__del__": lambda _: None, "__module__": cls.__module__}
            )
