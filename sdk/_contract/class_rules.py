"""The rules by which a class fits the services of its generated bases, as a pure function from class to problems.

Names come first: an RPC without a method, or with a name that can't be used, is one problem and is not checked further.
The method of every other RPC is compared with its proto in ``signature_rules.py``.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Container, Iterator
from inspect import Parameter, Signature
from typing import TYPE_CHECKING

from sdk._contract import locations
from sdk._contract.implementations import Implementation, find_implementation, generated_bases, is_servicer
from sdk._contract.signature_rules import (
    RequiredRpc,
    check_signature,
    format_rpc,
    proto_says,
    request_parameter,
    suggested_def,
)
from sdk._contract.wrapper_rules import check_wrappers, find_unbound
from sdk.errors import Problem

if TYPE_CHECKING:
    from sdk.service import Method, Service

# Names that the runtime calls on the class of a deployment, or sets on it, each with the reason for the message.
_SERVE = dict.fromkeys(
    ("check_health", "reconfigure", "record_autoscaling_stats", "record_replica_metadata", "record_routing_stats"),
    "Ray Serve calls it on every replica",
)
_SDK = dict.fromkeys(("bind", "options"), "every service base has it, to deploy the class")
_PYTHON = dict.fromkeys(
    # `__call__` is not among them: Ray Serve's guide has an RPC of that name.
    (
        *(name for name in dir(object) if name.startswith("__")),
        *("__annotations__", "__del__", "__dict__", "__getattr__", "__module__", "__slots__", "__weakref__"),
        *("__grpc_definition__", "__grpc_shim__", "__serve_build_asgi_app__"),
    ),
    "it has a special meaning for Python or the runtime",
)
_RESERVED = {**_SERVE, **_SDK, **_PYTHON}


# A method of a partial class this similar to an RPC without a method is taken for a misspelling of it. A partial class
# has other methods more often than it has misspelled ones, so this is above difflib's 0.6.
_MISSPELLED = 0.85


def check_class(cls: type, *, partial: bool = False) -> list[Problem]:
    """Return every way in which a class does not fit its services, in the order of the protos.

    Args:
        cls: A class, decorated or not.
        partial: Allow RPCs without a method, unless a method seems to be meant for one of them.
    """
    services = _services(cls)
    if not services:
        return [
            Problem(
                "no-service",
                cls.__name__,
                "the class does not inherit from a generated service base, so it has no service to serve",
                _base_remedy(cls),
                code_location=locations.of_class(cls),
            )
        ]
    # One method may implement the RPCs of two services if their cardinality and messages are the same.
    by_name: dict[str, list[RequiredRpc]] = {}
    for rpc in _rpcs(cls, services):
        by_name.setdefault(rpc.name, []).append(rpc)
    problems = list(_abstract(cls, by_name))
    for first, *others in by_name.values():
        if partial and _is_unimplemented(first):
            problems += _misspelled(first, _MISSPELLED)
            continue
        conflicts = [_conflict(first, rpc) for rpc in others if _contract(rpc.method) != _contract(first.method)]
        problems += conflicts or _check_rpc(first)
    return problems


def unimplemented_methods(cls: type) -> list[Method]:
    """Return the RPCs for which a class has no method, in the order of the protos.

    Args:
        cls: A class, decorated or not.
    """
    return [rpc.method for rpc in _rpcs(cls, _services(cls)) if _is_unimplemented(rpc)]


def unwritten_methods(cls: type) -> list[Method]:
    """Return the RPCs to write a method for: those without one, and without another method that is meant for them.

    Args:
        cls: A class, decorated or not.
    """
    rpcs = {rpc.name: rpc for rpc in reversed(list(_rpcs(cls, _services(cls))))}
    chosen = [rpc for rpc in reversed(rpcs.values()) if _is_unimplemented(rpc) and rpc.name not in _RESERVED]
    return [rpc.method for rpc in chosen if not list(_misspelled(rpc))]


def find_unannotated(cls: type) -> list[Problem]:
    """Return a problem for each method whose request or response has no annotation: allowed, but not checked.

    Args:
        cls: A class without a problem of :func:`check_class`.
    """
    problems = []
    for rpc in _rpcs(cls, _services(cls)):
        implementation = find_implementation(cls, rpc.name)
        signature = implementation.signature if implementation is not None else None
        if implementation is None or signature is None:
            continue
        request = request_parameter(signature)
        missing = [f"`{request.name}`"] if request is not None and request.annotation is Parameter.empty else []
        missing += ["the response"] if signature.return_annotation is Signature.empty else []
        if missing:
            message = f"`{rpc.name}` does not annotate {' and '.join(missing)}; {proto_says(rpc.method)}"
            remedy = f"write `{suggested_def(rpc.method, implementation.kind[0])}`"
            problems.append(rpc.problem("unannotated", message, remedy, implementation))
    return problems


def _base_remedy(cls: type) -> str:
    for base in cls.__mro__:
        if is_servicer(base):
            name, module = base.__name__.removesuffix("Servicer"), base.__module__.removesuffix("_pb2_grpc")
            return f"subclass `{name}Base` of `{module}_sdk`, which `sdk codegen` writes, in place of `{base.__name__}`"
    return f"generate code with `sdk codegen` and subclass its base: `class {cls.__name__}(…Base)`"


def _services(cls: type) -> list[Service]:
    return [vars(base)["__grpc_shim__"].service for base in generated_bases(cls)]


def _abstract(cls: type, rpcs: Container[str]) -> Iterator[Problem]:
    """Yield one problem for abstract methods that are not RPCs. Abstract RPCs are checked with the other RPCs."""
    names = sorted(name for name in _abstract_names(cls) if name not in rpcs)
    if names:
        listed = " and ".join(f"`{name}`" for name in names)
        verb, it = ("is", "it") if len(names) == 1 else ("are", "them")
        yield Problem(
            "abstract",
            cls.__name__,
            f"{listed} {verb} abstract, so the class can't be instantiated",
            f"implement {it}, or decorate the subclass that does",
            code_location=locations.of_class(cls),
        )


def _abstract_names(cls: type) -> frozenset[str]:
    names: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    return names


def _rpcs(cls: type, services: list[Service]) -> Iterator[RequiredRpc]:
    for service in services:
        for method in service.methods:
            yield RequiredRpc(cls, service, method)


def _check_rpc(rpc: RequiredRpc) -> Iterator[Problem]:
    reason = _RESERVED.get(rpc.name)
    implementation = find_implementation(rpc.cls, rpc.name)
    if reason is not None:
        message = f"`{rpc.name}` can't be the name of an RPC: {reason}"
        yield rpc.problem("reserved-name", message, "rename the RPC in the proto")
    elif implementation is None or implementation.is_declared_only:
        yield _missing(rpc)
    elif rpc.name in _abstract_names(rpc.cls):
        message = f"`{rpc.name}` is abstract, so the class can't be instantiated; {proto_says(rpc.method)}"
        remedy = f"write `{suggested_def(rpc.method)}`, or decorate the subclass that does"
        yield rpc.problem("abstract", message, remedy, implementation)
    elif not implementation.is_method:
        message = f"`{rpc.name}` is {_kind(implementation)}, not a method; {proto_says(rpc.method)}"
        yield rpc.problem("not-callable", message, f"write `{suggested_def(rpc.method)}`", implementation)
    elif (unbound := find_unbound(rpc, implementation)) is not None:
        yield unbound
    else:
        yield from check_wrappers(rpc, implementation)
        yield from check_signature(rpc, implementation)


def _missing(rpc: RequiredRpc) -> Problem:
    message = f"the class has no method `{rpc.name}`; {proto_says(rpc.method)}"
    without = rpc.problem("missing-rpc", message, f"write `{suggested_def(rpc.method)}`")
    return next(_misspelled(rpc), without)


def _is_unimplemented(rpc: RequiredRpc) -> bool:
    implementation = find_implementation(rpc.cls, rpc.name)
    return implementation is None or implementation.is_declared_only


def _misspelled(rpc: RequiredRpc, cutoff: float = 0.6) -> Iterator[Problem]:
    """Yield the problem of an RPC without a method, if an attribute of the class was perhaps meant to be the method.

    Args:
        rpc: The RPC.
        cutoff: Similarity of the names, from 0 to 1, at which one counts as a misspelling of the other.
    """
    cls, name = rpc.cls, rpc.name
    for base in cls.__mro__:
        if name in vars(base) and not Implementation(base, vars(base)[name]).is_declared_only:
            first = next(b for b in cls.__mro__ if name in vars(b))
            yield rpc.problem(
                "missing-rpc",
                f"`{first.__name__}` hides the `{name}` of `{base.__name__}`, which comes later in the bases; "
                f"{proto_says(rpc.method)}",
                f"put `{base.__name__}` before `{first.__name__}` in the bases of `{cls.__name__}`",
                Implementation(base, vars(base)[name]),
            )
            return
    candidates = _candidates(cls)
    for candidate, implementation in candidates.items():
        if _folded(candidate) == _folded(name):
            yield rpc.problem(
                "wrong-case",
                f"the class calls it `{candidate}`; {proto_says(rpc.method)}",
                f"rename `{candidate}` to `{name}`: the names must be identical",
                implementation,
            )
            return
    # A misspelling of another RPC is not a candidate for this one.
    others = {_folded(other.name) for other in _rpcs(cls, _services(cls)) if other.name != name}
    near = difflib.get_close_matches(name, [c for c in candidates if _folded(c) not in others], n=1, cutoff=cutoff)
    if near:
        yield rpc.problem(
            "missing-rpc",
            f"the class has no method `{name}`, did you mean `{near[0]}`? {_capitalized(proto_says(rpc.method))}",
            f"rename `{near[0]}` to `{name}`",
            candidates[near[0]],
        )


def _candidates(cls: type) -> dict[str, Implementation]:
    """Return the public methods of a class that are not inherited from a generated base."""
    inherited = {name for base in generated_bases(cls) for name in dir(base)}
    found: dict[str, Implementation] = {}
    for owner in cls.__mro__:
        for name, attribute in vars(owner).items():
            if name not in inherited and not name.startswith("_"):
                found.setdefault(name, Implementation(owner, attribute))
    return {name: implementation for name, implementation in found.items() if implementation.is_method}


def _conflict(first: RequiredRpc, second: RequiredRpc) -> Problem:
    # Full names distinguish two messages of one name in two packages.
    full_names = format_rpc(first.method) == format_rpc(second.method)
    said = [
        f"`{rpc.service.full_name}` ({locations.of_proto(rpc.service, rpc.method.line)}) says "
        f"`rpc {format_rpc(rpc.method, full_names=full_names)}`"
        for rpc in (first, second)
    ]
    return second.problem(
        "service-conflict",
        f"two services define `{first.name}` differently, and one method can't implement both: {', and '.join(said)}",
        "implement the two services in two classes and deploy both",
    )


def _contract(method: Method) -> tuple[object, str, str]:
    return method.cardinality, method.request.DESCRIPTOR.full_name, method.response.DESCRIPTOR.full_name


def _kind(implementation: Implementation) -> str:
    attribute = implementation.attribute
    if attribute is None:
        return "None"
    if isinstance(attribute, type):
        return "a class"
    name = "slot" if isinstance(attribute, types.MemberDescriptorType) else type(attribute).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]
