"""What a decorated class is: the services it implements and the options it is deployed with.

:func:`define` is what ``@grpc_deployment`` stamps a class with. Neither Ray nor grpc is imported here: a class is
defined, and checked, on machines that have neither a cluster nor a server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sdk._contract.interceptors import check_interceptors
from sdk._contract.methods import generated_bases
from sdk._contract.rules import check
from sdk.errors import DefinitionError, Problem

if TYPE_CHECKING:
    import grpc

    from sdk._contract.interceptors import Interceptor
    from sdk.service import Service, Shim

__all__ = ["Definition", "define", "keeping_unfit"]

#: Where classes that do not fit are noted with their problems; None: the decorator refuses them.
_unfit: ContextVar[dict[type, tuple[Problem, ...]] | None] = ContextVar("sdk_unfit", default=None)


@dataclass(frozen=True)
class Definition:
    """What :func:`grpc_deployment` stamps on a class. Immutable, and picklable together with its class.

    Attributes:
        cls_name: The class's name, for messages and as the default name of the deployment.
        services: The services it implements, in the order of its bases.
        shims: The shim of each service, in the same order.
        options: Ray Serve's deployment options given to the decorator.
        compression: How answers are compressed whose handler does not say it; None for not at all.
        interceptors: What stands between a call and its handler, the outermost first: interceptors, and callables that
            make one.
    """

    cls_name: str
    services: tuple[Service, ...]
    shims: tuple[type[Shim], ...]
    options: Mapping[str, Any] = field(hash=False)
    compression: grpc.Compression | None = None
    interceptors: tuple[Interceptor, ...] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def idempotent_paths(self) -> tuple[str, ...]:
        """Paths of the methods whose calls may be sent to another replica when one is lost, sorted.

        Those that their proto marks, but for streams of requests: nobody keeps one, to send it once more.
        """
        methods = [method for service in self.services for method in service.methods]
        return tuple(
            sorted(m.path for m in methods if m.idempotency != "unknown" and not m.cardinality.client_streaming)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # The services are left to their shims, which are pickled by reference to the generated module: importing it
        # loads the messages, and a worker with other generated code fails with what is wrong.
        return _rebuild, (self.cls_name, self.shims, dict(self.options), self.compression, self.interceptors)


def define(
    cls: type,
    options: Mapping[str, Any],
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Definition:
    """Return the definition of a class, after every check.

    Args:
        cls: A class that inherits from at least one generated base.
        options: Ray Serve's deployment options.
        compression: How answers are compressed whose handler does not say it.
        interceptors: Interceptors, and callables that make one.

    Raises:
        DefinitionError: The class does not fit its services, or an interceptor is none; the error lists every problem.
            Not raised amid :func:`keeping_unfit`.
    """
    problems = [*check(cls), *check_interceptors(cls.__name__, interceptors)]
    if problems:
        if (unfit := _unfit.get()) is None:
            raise DefinitionError(cls.__name__, problems)
        unfit[cls] = tuple(problems)
        interceptors = ()  # perhaps not even a list
    shims: tuple[type[Shim], ...] = tuple(vars(base)["__grpc_shim__"] for base in generated_bases(cls))
    return _rebuild(cls.__name__, shims, options, compression, interceptors)


@contextlib.contextmanager
def keeping_unfit() -> Iterator[Mapping[type, tuple[Problem, ...]]]:
    """Note the classes that do not fit instead of refusing them, so that an import goes on to the other classes.

    Such a class is decorated all the same; it is to be looked at and not to be run.

    Returns:
        The problems of each such class, in the order in which they are decorated.
    """
    unfit: dict[type, tuple[Problem, ...]] = {}
    token = _unfit.set(unfit)
    try:
        yield unfit
    finally:
        _unfit.reset(token)


def _rebuild(
    cls_name: str,
    shims: tuple[type[Shim], ...],
    options: Mapping[str, Any],
    compression: grpc.Compression | None,
    interceptors: Sequence[Interceptor],
) -> Definition:
    services = tuple(shim.service for shim in shims)
    return Definition(cls_name, services, shims, options, compression, tuple(interceptors))


def definition_of(cls: Any) -> Definition | None:
    """Return the definition that :func:`grpc_deployment` stamped on this very class, or None."""
    stamp = vars(cls).get("__grpc_definition__") if isinstance(cls, type) else None
    return stamp if isinstance(stamp, Definition) else None
