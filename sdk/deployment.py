"""The decorator that binds a class to its services, and the base of every generated base.

``bind`` and ``options`` are methods of the base, because the decorator returns the class unchanged: a unit test can
instantiate and call it, and mypy and pyright check the constructor's arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar, overload

from typing_extensions import TypedDict, Unpack

from sdk._backend import backend
from sdk._contract.definition import define
from sdk.errors import OptionsError

if TYPE_CHECKING:
    import grpc

    from sdk._contract.allow import Allow
    from sdk._contract.interceptors import Interceptor
    from sdk._contract.validation import Validate
    from sdk.service import Shim

P = ParamSpec("P")
C = TypeVar("C", bound="type[ServicerBase]")
B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)

if TYPE_CHECKING:

    class BoundDeployment:
        """Return type of ``bind``, for type checkers. Generated code derives one that is the typed handle as well.

        At run time ``bind`` returns a ``ray.serve.Application``. Ray Serve replaces it with a handle when it is passed
        to the constructor of another deployment, so it is typed as one. It is not typed as Ray Serve's own classes,
        which would make type checkers read 900 modules of Ray: :func:`sdk.handle` casts it to those.
        """

    class BoundAs(Any, Generic[B_co]):  # type: ignore[misc]  # Any: a class of two services inherits two of them
        """Names the return type of a class's ``bind``, as the return type of ``__grpc_bound__``.

        A class of several services is typed as a handle of its first one.
        """

else:
    # Generated code imports both names, but uses them only under TYPE_CHECKING.
    BoundDeployment = BoundAs = object


class _Bindable(Protocol[B_co]):
    def __grpc_bound__(self) -> BoundAs[B_co]: ...


class AutoscalingConfig(Protocol):
    """Ray Serve's ``AutoscalingConfig``, by some of its attributes: its import would cost type checkers seconds."""

    min_replicas: int
    max_replicas: int


class DeploymentOptions(TypedDict, total=False):
    """Ray Serve's deployment options, and one of the SDK: ``expose``.

    With ``expose=False`` clients can't call the deployment's services: the ingress does not route to it. Other
    deployments call its methods through their handles. For the other options see
    https://docs.ray.io/en/latest/serve/api/doc/ray.serve.deployment_decorator.html.
    """

    expose: bool
    name: str
    num_replicas: int | str | None
    ray_actor_options: dict[str, Any]
    placement_group_bundles: list[dict[str, float]]
    placement_group_strategy: str
    max_replicas_per_node: int
    user_config: Any
    max_ongoing_requests: int
    max_queued_requests: int
    autoscaling_config: dict[str, Any] | AutoscalingConfig | None
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    logging_config: dict[str, Any] | None
    max_constructor_retry_count: int
    max_surge_percent: int


class ServicerBase:
    """Base of every generated base. It has the class methods ``bind`` and ``options``.

    Example:
        ::

            app = Greeter.options(num_replicas=2).bind("Hello")
            sdk.run(app)
    """

    __grpc_shim__: ClassVar[type[Shim]]

    if TYPE_CHECKING:

        def __grpc_bound__(self) -> BoundAs[BoundDeployment]:
            raise NotImplementedError

    @classmethod
    def bind(cls: Callable[P, _Bindable[B]], *args: P.args, **kwargs: P.kwargs) -> B:
        """Bind constructor arguments and return an application for :func:`sdk.run`.

        Args:
            *args: Positional arguments of the class's constructor. The result of another ``bind`` arrives there as a
                generated handle, if the parameter is annotated as one (``GreeterHandle``), else as Ray Serve's
                ``DeploymentHandle``.
            **kwargs: Keyword arguments of the constructor.

        Returns:
            A ``ray.serve.Application``.

        Raises:
            DefinitionError: The class is not decorated with :func:`grpc_deployment`.
            OptionsError: Ray Serve refuses an option of the deployment, or a parameter is a handle of another service.
            ApplicationError: Another deployment among the arguments serves one of the services of this one.
        """
        bound: B = _bind(cls, {}, args, kwargs)
        return bound

    @classmethod
    def options(cls: Callable[P, _Bindable[B]], **options: Unpack[DeploymentOptions]) -> Configured[P, B]:
        """Return the deployment with other options; call ``bind`` on the result.

        Args:
            **options: Ray Serve's deployment options; they replace those given to the decorator.

        Raises:
            OptionsError: An option has an unknown name or a value that Ray Serve refuses.
        """
        _check_options(cls, options)
        return Configured(cls, options)

    # Typed handles call it over Ray's where there is no ingress (sdk/_serve/ray_handles.py). No RPC can have its name,
    # which begins with an underscore.
    async def _grpc_over_ray(self, request: bytes) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(backend().answer_over_ray(self, request)) as pieces:
            async for piece in pieces:
                yield piece


@dataclass(frozen=True)
class Configured(Generic[P, B]):
    """A deployment with options that replace those of its decorator, as ``options`` returns it."""

    cls: Callable[P, _Bindable[B]]
    replaced: DeploymentOptions

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> B:
        """Bind constructor arguments, as :meth:`ServicerBase.bind` does."""
        bound: B = _bind(self.cls, self.replaced, args, kwargs)
        return bound


@overload
def grpc_deployment(cls: C, /) -> C: ...
@overload
def grpc_deployment(
    *,
    allow: Allow | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Interceptor] = (),
    partial: bool = False,
    validate: Validate = False,
    **options: Unpack[DeploymentOptions],
) -> Callable[[C], C]: ...
def grpc_deployment(
    cls: C | None = None,
    /,
    *,
    allow: Allow | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Interceptor] = (),
    partial: bool = False,
    validate: Validate = False,
    **options: Unpack[DeploymentOptions],
) -> C | Callable[[C], C]:
    """Bind a class to the services of the generated bases it inherits from.

    Names, parameters and types of the RPC methods are checked against the proto at once. The class is returned
    unchanged, stamped with its definition.

    Args:
        cls: The class, when the decorator is used without arguments.
        allow: Who may call: identities of :mod:`sdk.access` (``Token``, ``ApiKey``, ``Certificate``), or
            ``"authenticated"`` for each client that the ingress knows; one or several. A plain function of request and
            context decides about other clients: it returns True for a call that is allowed. It must
            not block, and RPCs with a stream of requests can't have one. A mapping sets this for each RPC by its name
            in the proto, and for all others under ``"*"``; ``"anyone"`` allows every call. Other calls end
            PERMISSION_DENIED, or UNAUTHENTICATED without credentials, before an interceptor runs. A call of another
            deployment counts as one of the client for whom it is made. Subclasses do not inherit it.
        compression: Compression of responses for clients that accept it, unless the handler calls ``set_compression``;
            None for no compression.
        interceptors: ``grpc.aio.ServerInterceptor`` objects, the outermost first. Each one intercepts every method of
            the class, sync methods included, in every replica. A callable without parameters, such as a class, is
            called once in each replica and returns the interceptor; use one if the interceptor can't be pickled with a
            class of ``__main__``. Sync handlers receive the SDK's context, not one that an interceptor wrapped. Calls
            through Ray Serve's own gRPC proxy are not intercepted.
        partial: Allow RPCs without a method: their calls end with UNIMPLEMENTED, as those of grpc's own servicers do.
            ``sdk check`` lists them. A method that seems to be a misspelled RPC is still an error.
        validate: Check messages against the rules of their protos, ``buf.validate``. ``True`` or ``"requests"`` checks
            each request before the handler gets it: one that breaks a rule ends the call INVALID_ARGUMENT with
            ``google.rpc.BadRequest``. ``"responses"`` checks each response: one that breaks a rule ends the call
            INTERNAL. ``"both"`` checks both. A mapping sets this for each RPC by its name in the proto, and for all
            others under ``"*"``. RPCs whose messages have no rules cost nothing. Needs the extra ``validate``.
        **options: Ray Serve's deployment options (``num_replicas``, ``max_ongoing_requests``, …), and ``expose``: with
            False, clients can't call the services; only other deployments can, through handles.

    Raises:
        DefinitionError: The class does not fit its services, one of ``interceptors`` is not an interceptor, or
            ``validate`` or ``allow`` is wrong, or a validation rule that it needs; the error lists every problem.
        OptionsError: An option has an unknown name or a value that Ray Serve refuses.
        MissingExtraError: ``validate`` needs the extra of that name.

    Example:
        >>> from sdk import grpc_deployment
        >>> from user_defined_protos_sdk import ImageClassificationServiceBase
        >>> from user_defined_protos_pb2 import ImageClass, ImageData
        >>> @grpc_deployment
        ... class Classifier(ImageClassificationServiceBase):
        ...     async def Predict(self, request: ImageData) -> ImageClass:
        ...         return ImageClass(classes=["cat"], probabilities=[1.0])
    """

    def decorate(target: C) -> C:
        if not isinstance(target, type):
            raise OptionsError(_not_a_class(target))
        if options:
            _check_options(target, options)
        if compression is not None:
            _check_compression(target, compression)
        if not isinstance(partial, bool):
            raise OptionsError(f"{target.__name__}: partial must be True or False, not {partial!r}")
        target.__grpc_definition__ = define(  # type: ignore[attr-defined]  # the base does not declare the stamp
            target, options, compression, interceptors, partial=partial, validate=validate, allow=allow
        )
        return target

    return decorate if cls is None else decorate(cls)


def _not_a_class(target: Any) -> str:
    if (wrapped := getattr(target, "func_or_class", None)) is not None:  # of Ray Serve's Deployment
        name = getattr(wrapped, "__name__", wrapped)
        return f"{name}: @grpc_deployment takes the place of @serve.deployment: remove that, and give its options here"
    what = f"{type(target).__name__} {getattr(target, '__name__', repr(target))}"
    return f"@grpc_deployment is for a class, not for the {what}; options have names: @grpc_deployment(num_replicas=2)"


def _check_options(cls: Any, options: Mapping[str, Any]) -> None:
    # Only Ray Serve knows the valid values.
    backend().check_options(getattr(cls, "__name__", str(cls)), options)


def _check_compression(cls: Any, compression: Any) -> None:
    import grpc

    if not isinstance(compression, grpc.Compression):
        raise OptionsError(
            f"{getattr(cls, '__name__', cls)}: compression must be a member of grpc.Compression, not {compression!r}"
        )


def _bind(cls: Any, replaced: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return backend().bind_class(cls, replaced, args, kwargs)
