"""The option ``validate`` of a deployment: the messages that are checked against the rules of their protos."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from sdk._contract import locations
from sdk._validation.annotated import has_rules
from sdk._validation.broken_rules import broken_rules
from sdk.errors import Problem

if TYPE_CHECKING:
    from sdk.service import Method, Service

#: For one RPC: True and "requests" are the same.
Validated: TypeAlias = bool | Literal["requests", "responses", "both"]
#: For all RPCs, or for each by its name in the proto; "*" names all others.
Validate: TypeAlias = Validated | Mapping[str, Validated]

_OTHERS = "*"
_VALUES: tuple[Validated, ...] = (True, False, "requests", "responses", "both")


class Checks(NamedTuple):
    """The messages of an RPC to check."""

    checks_requests: bool
    checks_responses: bool


def checks_of(services: Sequence[Service], validate: Validate) -> dict[str, Checks]:
    """Return the messages to check by the path of the RPC, without RPCs whose messages have no rules.

    Args:
        services: The services of the class.
        validate: The option of its decorator.
    """
    if validate is False:
        return {}
    found = {}
    for service in services:
        for method in service.methods:
            wanted = _wanted(validate, method)
            checks = Checks(
                wanted in (True, "requests", "both") and has_rules(method.request.DESCRIPTOR),
                wanted in ("responses", "both") and has_rules(method.response.DESCRIPTOR),
            )
            if any(checks):
                found[method.path] = checks
    return found


def check_validation(class_name: str, services: Sequence[Service], validate: Any) -> list[Problem]:
    """Return the problems of the option ``validate``, and of the rules that it needs.

    Args:
        class_name: Name of the decorated class, for the messages.
        services: Its services.
        validate: The argument of the decorator.

    Raises:
        MissingExtraError: A message has rules, and the package that evaluates them is not installed.
    """
    problems = list(_option_problems(class_name, services, validate))
    if problems:
        return problems
    checks = checks_of(services, validate)
    checked: dict[str, Any] = {}
    for service in services:
        for method in service.methods:
            wanted = checks.get(method.path, (False, False))
            for message, is_checked in zip((method.request, method.response), wanted, strict=True):
                if is_checked:
                    checked[message.DESCRIPTOR.full_name] = message.DESCRIPTOR
    return [rule_problem(class_name, each) for each in (broken_rules(checked.values()) if checked else ())]


def rule_problem(subject: str, broken: Any) -> Problem:
    """Return the problem of a rule that does not compile.

    Args:
        subject: The class whose services need it.
        broken: The rule.
    """
    path = locations.find_proto(broken.proto)
    where = str(path) if path is not None and broken.line else broken.proto
    return Problem(
        "validation-rule",
        subject,
        f"the rule `{broken.rule}` of {broken.element} does not work: {broken.reason}",
        "fix the rule in the proto",
        proto_location=f"{broken.proto}:{broken.line}" if broken.line else where,
    )


def _wanted(validate: Validate, method: Method) -> Validated:
    if isinstance(validate, Mapping):
        return validate.get(method.name, validate.get(_OTHERS, False))
    return validate


def _option_problems(class_name: str, services: Sequence[Service], validate: Any) -> Iterator[Problem]:
    values = dict(validate) if isinstance(validate, Mapping) else {_OTHERS: validate}
    names = list(dict.fromkeys(method.name for service in services for method in service.methods))
    for name, value in values.items():
        if name != _OTHERS and name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            meant = near[0] if near else f'one of {", ".join(names)}, or "*" for all others'
            message = f"validate names `{name}`, which is not an RPC of {', '.join(s.full_name for s in services)}"
            yield Problem("validate", class_name, message, f"write {meant}")
        if not any(value is each or (isinstance(each, str) and value == each) for each in _VALUES):
            of = f" of `{name}`" if isinstance(validate, Mapping) else ""
            message = f"validate{of} is {value!r}"
            yield Problem(
                "validate", class_name, message, 'write True, False, "requests", "responses" or "both", or a mapping '
                "of these by RPC" if not of else 'write True, False, "requests", "responses" or "both"',
            )  # fmt: skip
