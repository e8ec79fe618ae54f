"""Comparison of the HTTP rules of an RPC, ``google.api.http``, for clients that send JSON over HTTP.

See https://github.com/googleapis/googleapis/blob/master/google/api/http.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from sdk._protos.custom_options import custom_option
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, MethodDescriptor

    from sdk._protos.descriptors import Descriptors

_OPTION = "google.api.http"
_VERBS = ("get", "put", "post", "delete", "patch")
# A variable of a path: `{name=shelves/*}`; without a pattern it is one segment.
_VARIABLE = re.compile(r"\{([^={}]+)(?:=([^{}]*))?\}")


class HttpRoute(NamedTuple):
    """One way to call an RPC over HTTP.

    Attributes:
        verb: ``"GET"``.
        path: The path in the proto.
        shape: The path as clients see it: each variable is only its pattern.
        fields: Numbers of the fields that the variables set.
        body: The field that the body is, ``"*"`` for the whole message, ``""`` for none; a field by its number.
        response_body: The field that the response is, by its number; ``""`` for the whole message.
    """

    verb: str
    path: str
    shape: str
    fields: tuple[str, ...]
    body: str
    response_body: str

    @property
    def key(self) -> tuple[str, str]:
        """The verb and the path as clients see it."""
        return self.verb, self.shape


def http_routes(method: MethodDescriptor) -> list[HttpRoute]:
    """Return the routes of an RPC, its additional bindings included; none without the option."""
    rule = custom_option(method, _OPTION)
    return [] if rule is None else [_route(each, method) for each in (rule, *rule.additional_bindings)]


def check_http(old: MethodDescriptor, new: MethodDescriptor, files: Descriptors) -> Iterator[Change]:
    """Yield the changes of routes that clients of the old version notice.

    Args:
        old: The RPC in the old version.
        new: The RPC in the new version.
        files: The files of the new version, for locations.
    """
    now = {route.key: route for route in http_routes(new)}
    for before in http_routes(old):
        was = f"{before.verb} {before.path}"
        after = now.get(before.key)

        def change(rule: str, message: str, remedy: str, is_now: str, was: str = was) -> Change:
            return Change(rule, "error", old.full_name, message, remedy, was, is_now, files.location(new))

        if after is None:
            left = ", ".join(f"`{route.verb} {route.path}`" for route in now.values())
            became = f"; it has {left} now" if left else ""
            message = f"its HTTP route `{was}` is gone{became}: these calls end 404"
            yield change("http-route", message, "keep it, as one of the `additional_bindings`", left.replace("`", ""))
            continue
        is_now = f"{after.verb} {after.path}"
        if before.fields != after.fields:
            message = f"`{was}` became `{is_now}`: the path sets other fields"
            yield change("http-route", message, f"keep `{before.path}`", is_now)
        for what, one, other in (
            ("body", before.body, after.body),
            ("response_body", before.response_body, after.response_body),
        ):
            if one != other:
                names = [_field_name(each, method, what) for each, method in ((one, old), (other, new))]
                message = f"the {what} of `{was}` was {names[0]} and is {names[1]}: JSON of these calls is misread"
                yield change("http-body", message, f"keep the {what}", is_now)


def _route(rule: Any, method: MethodDescriptor) -> HttpRoute:
    pattern = rule.WhichOneof("pattern")
    verb, path = (rule.custom.kind, rule.custom.path) if pattern == "custom" else ((pattern or "").upper(), "")
    if pattern in _VERBS:
        path = getattr(rule, pattern)
    variables = _VARIABLE.findall(path)
    shape = _VARIABLE.sub(lambda match: match[2] or "*", path)
    request, response = method.input_type, method.output_type
    return HttpRoute(
        verb,
        path,
        shape,
        tuple(_number(request, name) for name, _ in variables),
        rule.body if rule.body in ("", "*") else _number(request, rule.body),
        _number(response, rule.response_body) if rule.response_body else "",
    )


def _number(message: Descriptor | None, path: str) -> str:
    """Return the path of a field with numbers in place of names, so that a renamed field is the same."""
    numbers = []
    for name in path.split("."):
        field = message.fields_by_name.get(name) if message is not None else None
        numbers.append(name if field is None else str(field.number))
        message = field.message_type if field is not None else None
    return ".".join(numbers)


def _field_name(number: str, method: MethodDescriptor, what: str) -> str:
    message = method.input_type if what == "body" else method.output_type
    if number == "*" or (not number and what == "response_body"):
        return "the whole message"
    if not number:
        return "empty"
    field = message.fields_by_number.get(int(number)) if number.isdigit() else None
    return f"`{field.name if field is not None else number}`"
