"""The definition of a decorated class: the services it implements and the options it is deployed with.

``@grpc_deployment`` stamps a class with the result of :func:`define`. Neither Ray nor grpc is imported here: a class is
defined and checked on machines that have neither a cluster nor a server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sdk._contract.allow import check_allow, rules_of
from sdk._contract.class_rules import check_class, unimplemented_methods
from sdk._contract.implementations import generated_bases
from sdk._contract.interceptors import check_interceptors
from sdk._contract.validation import Checks, check_validation, checks_of
from sdk.errors import DefinitionError, Problem

if TYPE_CHECKING:
    import grpc

    from sdk._contract.allow import Allow
    from sdk._contract.interceptors import Interceptor
    from sdk._contract.validation import Validate
    from sdk.access import CallRule
    from sdk.service import MethodBinding, Service, Shim

__all__ = ["Definition", "collect_definition_errors", "define"]

#: Collects classes that do not fit, with their problems; None while the decorator raises their problems.
_collected: ContextVar[dict[type, tuple[Problem, ...]] | None] = ContextVar("sdk_unfit", default=None)


@dataclass(frozen=True)
class Definition:
    """Stamp of :func:`grpc_deployment` on a class. Immutable, and picklable together with its class.

    Attributes:
        cls_name: The class's name, for messages and as the default name of the deployment.
        services: The services it implements, in the order of its bases.
        shims: The shim of each service, in the same order.
        options: Ray Serve's deployment options given to the decorator.
        compression: Compression of responses, unless the handler sets another one; None for no compression.
        interceptors: Interceptors around every handler, the outermost first, and callables that make one.
        is_partial: True if RPCs without a method are allowed; their calls end with UNIMPLEMENTED.
        unimplemented: Paths of the RPCs without a method, in the order of the protos.
        validate: The messages that are checked against the rules of their protos, as the decorator takes it.
        allow: Who may call, as the decorator takes it; None for everyone.
    """

    cls_name: str
    services: tuple[Service, ...]
    shims: tuple[type[Shim], ...]
    options: Mapping[str, Any] = field(hash=False)
    compression: grpc.Compression | None = None
    interceptors: tuple[Interceptor, ...] = field(default=(), hash=False)
    is_partial: bool = False
    unimplemented: tuple[str, ...] = ()
    validate: Validate = field(default=False, hash=False)
    allow: Allow | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def idempotent_paths(self) -> tuple[str, ...]:
        """Sorted paths of the methods whose calls Envoy may retry on another replica when one is lost.

        Those with an ``idempotency_level`` in the proto, except client streams: nobody buffers the requests of a stream
        to send them again.
        """
        methods = [method for service in self.services for method in service.methods]
        allowed = (m for m in methods if m.idempotency != "unknown" and not m.cardinality.client_streaming)
        return tuple(sorted(method.path for method in allowed if method.path not in self.unimplemented))

    @cached_property
    def checks(self) -> Mapping[str, Checks]:
        """The messages to check, by the path of the RPC; only RPCs whose messages have rules are in it."""
        return checks_of(self.services, self.validate)

    @cached_property
    def rules(self) -> Mapping[str, CallRule]:
        """The rules by the path of the RPC; RPCs that everyone may call have no entry."""
        return rules_of(self.services, self.allow)

    def bindings(self, implementation: Any) -> list[MethodBinding]:
        """Return one binding for each RPC that the class implements, in the order of the protos.

        Args:
            implementation: An instance of the class.
        """
        bindings = [
            binding
            for shim in self.shims
            for binding in shim.bindings(implementation)
            if binding.method.path not in self.unimplemented
        ]
        if self.checks:
            checks = self.checks
            bindings = [
                replace(each, **checks[each.method.path]._asdict()) if each.method.path in checks else each
                for each in bindings
            ]
        if self.rules:
            bindings = [replace(each, rule=self.rules.get(each.method.path)) for each in bindings]
        return bindings

    def __reduce__(self) -> tuple[Any, ...]:
        # Services are not pickled but read from their shims, which are pickled by reference to the generated module.
        # Importing that module loads the messages, and a worker with other generated code fails with a clear error.
        values = self.cls_name, self.shims, dict(self.options), self.compression, self.interceptors
        return _rebuild, (*values, self.is_partial, self.unimplemented, self.validate, self.allow)


def define(
    cls: type,
    options: Mapping[str, Any],
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Interceptor] = (),
    *,
    partial: bool = False,
    validate: Validate = False,
    allow: Allow | None = None,
) -> Definition:
    """Return the definition of a class, after every check.

    Args:
        cls: A class that inherits from at least one generated base.
        options: Ray Serve's deployment options.
        compression: Compression of responses, unless the handler sets another one.
        interceptors: Interceptors, and callables that make one.
        partial: Allow RPCs without a method.
        validate: The messages to check against the rules of their protos.
        allow: Who may call; None for everyone.

    Raises:
        DefinitionError: The class does not fit its services, one of ``interceptors`` is not an interceptor, or
            ``validate`` or ``allow`` is wrong, or a validation rule that it needs; the error lists every problem. Not
            raised within :func:`collect_definition_errors`.
        MissingExtraError: ``validate`` needs the extra of that name.
    """
    shims: tuple[type[Shim], ...] = tuple(vars(base)["__grpc_shim__"] for base in generated_bases(cls))
    problems = [*check_class(cls, partial=partial), *check_interceptors(cls.__name__, interceptors)]
    if validate is not False:
        problems += check_validation(cls.__name__, [shim.service for shim in shims], validate)
    if allow is not None:
        problems += check_allow(cls.__name__, [shim.service for shim in shims], allow)
    if problems:
        if (collected := _collected.get()) is None:
            raise DefinitionError(cls.__name__, problems)
        collected[cls] = tuple(problems)
        interceptors, validate, allow = (), False, None  # they may be anything, not even a list
    unimplemented = tuple(method.path for method in unimplemented_methods(cls)) if partial else ()
    return _rebuild(cls.__name__, shims, options, compression, interceptors, partial, unimplemented, validate, allow)


@contextlib.contextmanager
def collect_definition_errors() -> Iterator[Mapping[type, tuple[Problem, ...]]]:
    """Collect the problems of classes that do not fit instead of raising them, so that an import reaches every class.

    Such a class is decorated all the same, for inspection; it must not be deployed.

    Yields:
        A mapping that fills with the problems of each such class, in the order in which they are decorated.
    """
    collected: dict[type, tuple[Problem, ...]] = {}
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def _rebuild(
    cls_name: str,
    shims: tuple[type[Shim], ...],
    options: Mapping[str, Any],
    compression: grpc.Compression | None,
    interceptors: Sequence[Interceptor],
    is_partial: bool,
    unimplemented: tuple[str, ...],
    validate: Validate,
    allow: Allow | None,
) -> Definition:
    services = tuple(shim.service for shim in shims)
    values = (options, compression, tuple(interceptors), is_partial, unimplemented, validate, allow)
    return Definition(cls_name, services, shims, *values)


def definition_of(cls: Any) -> Definition | None:
    """Return the definition that :func:`grpc_deployment` stamped on this class, not on a base of it, or None."""
    stamp = vars(cls).get("__grpc_definition__") if isinstance(cls, type) else None
    return stamp if isinstance(stamp, Definition) else None
