"""The effective signature of a decorated function: the parameters that its callers can pass.

``functools.wraps`` claims that a wrapper takes the parameters of the wrapped function. That is true of a wrapper with
``*args``, which forwards its arguments. A wrapper that names its parameters takes exactly those; it may call the
wrapped function with more arguments, such as a database session, or with different ones.

See https://docs.python.org/3/library/inspect.html#inspect.signature and
https://docs.python.org/3/library/functools.html#functools.wraps.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from inspect import Parameter, Signature
from typing import Any

CONTEXT_PARAMETER = "grpc_context"


def signature_of(bound: Any) -> Signature | None:
    """Return the effective signature of a bound method; None when Python does not know it (a method written in C).

    Args:
        bound: The attribute of an instance, as Python looks it up.

    Raises:
        ValueError: The attribute is a bound method, but its function takes no positional parameter for ``self``.

    Example:
        >>> import functools
        >>> def session(function):
        ...     @functools.wraps(function)
        ...     def wrapper(request):
        ...         return function(request, "a session")
        ...     return wrapper
        >>> @session
        ... def handler(request: int, db: str) -> bytes: ...
        >>> list(signature_of(handler).parameters)
        ['request']
    """
    function = bound.__func__ if isinstance(bound, types.MethodType) else bound
    taker, wrapped = _taker(function)
    target = types.MethodType(taker, bound.__self__) if isinstance(bound, types.MethodType) else taker
    try:
        signature = _signature(target)
    except (TypeError, ValueError):
        if isinstance(bound, types.MethodType) and isinstance(inspect.unwrap(function), types.FunctionType):
            raise ValueError("no room for self") from None
        return None
    return signature if wrapped is None else _as_wrapper(signature, taker, wrapped)


def takes_context(bound: Any) -> bool:
    """Return whether a bound method has a parameter named ``grpc_context``, or forwards one.

    Example:
        >>> def handler(request, *, grpc_context): ...
        >>> takes_context(handler), takes_context(lambda request: request)
        (True, False)
    """
    try:
        signature = signature_of(bound)
    except ValueError:
        return False
    return signature is not None and CONTEXT_PARAMETER in signature.parameters


def _taker(function: Any) -> tuple[Any, Any]:
    """Return the callable whose parameters callers can pass, and the function that it wraps or None."""
    if isinstance(function, functools.partial):  # as the `__get__` of an object with `__call__` returns one
        taker, wrapped = _taker(function.func)
        return functools.partial(taker, *function.args, **function.keywords), wrapped
    seen: set[int] = set()
    while id(function) not in seen:
        seen.add(id(function))
        wrapped = getattr(function, "__wrapped__", None)
        # An explicit signature, as decorator libraries set it, is authoritative.
        if wrapped is None or getattr(function, "__signature__", None) is not None:
            return function, None
        try:
            own = _signature(function)
        except (TypeError, ValueError):
            own = None
        if own is not None and not any(p.kind is Parameter.VAR_POSITIONAL for p in own.parameters.values()):
            return function, wrapped
        function = wrapped
    return function, None


def _as_wrapper(signature: Signature, wrapper: Any, wrapped: Any) -> Signature:
    """Return the signature of a wrapper that names its parameters, without the annotations that it only copied."""
    try:
        inner = _signature(_taker(wrapped)[0]).parameters
    except (TypeError, ValueError):
        return signature
    parameters = list(signature.parameters.values())
    passes_names = bool(parameters) and parameters[-1].kind is Parameter.VAR_KEYWORD
    if passes_names and CONTEXT_PARAMETER in inner and CONTEXT_PARAMETER not in signature.parameters:
        parameters.insert(-1, inner[CONTEXT_PARAMETER].replace(kind=Parameter.KEYWORD_ONLY))
    is_copied = annotations_of(wrapper) == annotations_of(wrapped)
    if is_copied and parameters and parameters[0].name not in inner:
        # The wrapper's first parameter differs from the wrapped function's, whose annotations `wraps` has copied.
        parameters = [each.replace(annotation=Parameter.empty) for each in parameters]
        signature = signature.replace(return_annotation=Signature.empty)
    return signature.replace(parameters=parameters)


def annotations_of(function: Any) -> Any:
    """Return the annotations of a function, without evaluating them; None for an object without annotations."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.STRING)
    return getattr(function, "__annotations__", None)


def _signature(function: Any) -> Signature:
    if sys.version_info >= (3, 14):
        # Since Python 3.14 annotations are evaluated when they are read (PEP 649), and a name may be undefined.
        import annotationlib

        return inspect.signature(function, follow_wrapped=False, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function, follow_wrapped=False)
