"""The routes of ``google.api.http``: matching of a request, and the message from path, query and body.

https://github.com/googleapis/googleapis/blob/master/google/api/http.proto. Path, query and body become one JSON value,
from which protobuf makes the message: so each field takes what it takes in JSON.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from google.protobuf import descriptor_pool, json_format

from sdk._protos.custom_options import custom_option
from sdk._protos.wire_format import is_repeated
from sdk._web.json_codec import NOT_THE_MESSAGE, dump, explain, load, print_message
from sdk._web.json_reader import message_of
from sdk._wire.frames import FrameError
from sdk._wire.metadata import INTERNAL, INVALID_ARGUMENT
from sdk._xds.snapshot import JsonRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

    from sdk.service import Method, Service

logger = logging.getLogger("sdk.web")

_OPTION = "google.api.http"
_VERBS = ("get", "put", "post", "delete", "patch")
_PIECE = re.compile(r"\{(?P<field>[\w.]+)(?:=(?P<pattern>[^{}]+))?\}|(?P<text>[^{}]+)")
# Messages that JSON writes as one value: a path or a query can hold them.
_VALUES = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "Timestamp", "Duration", "FieldMask", "Value", "BoolValue", "BytesValue", "DoubleValue", "FloatValue",
        "Int32Value", "Int64Value", "StringValue", "UInt32Value", "UInt64Value",
    )
)  # fmt: skip
# Verbs of requests that are calls in no protocol.
_NOT_CALLS = frozenset({"OPTIONS", "HEAD", "CONNECT", "TRACE"})
_MANY_SEGMENTS = "**"
_ANY_VERB = "*"
_VERBS_OF_CALLS = tuple(verb.upper() for verb in _VERBS)
_ENCODED_SLASH = re.compile("%(?=2[Ff])")
HTTP_BODY = "google.api.HttpBody"
#: Content-type of bytes that name none.
OCTETS = b"application/octet-stream"


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One route of a method.

    Attributes:
        method: The method.
        verb: ``"GET"``; ``"*"`` for every one.
        template: The path in the proto.
        pattern: The path as a regular expression, a group for each variable.
        fields: The field of each group; with True if its value may hold several segments.
        body: The field that the body is; ``"*"`` for the whole message, empty for none.
        response_body: The field that the response is; empty for the whole message.
        rank: Routes are tried in this order: literal segments before wildcards.
        has_raw_body: The body is the bytes of a ``google.api.HttpBody``.
        has_raw_response: The response is the bytes of a ``google.api.HttpBody``.
    """

    method: Method
    verb: str
    template: str
    pattern: re.Pattern[str]
    fields: tuple[tuple[str, bool], ...]
    body: str
    response_body: str
    rank: tuple[int, ...]
    has_raw_body: bool
    has_raw_response: bool


class RuleMatch:
    """A request that matched a rule.

    Args:
        rule: The rule.
        values: The values of its variables.
        query: The query string, ``"a=1&b.c=2"``.
    """

    __slots__ = ("_query", "_values", "rule")

    def __init__(self, rule: HttpRule, values: tuple[str, ...], query: str) -> None:
        self.rule = rule
        self._values = values
        self._query = query

    def request(self, body: bytes | bytearray, content_type: bytes = b"") -> bytes:
        """Return the request message as protobuf bytes.

        Args:
            body: The request's body, or one message of it.
            content_type: The request's content-type.

        Raises:
            FrameError: INVALID_ARGUMENT: a part of the request does not fit the message. The text names it.
        """
        rule, kind = self.rule, self.rule.method.request
        message: Any = kind.DESCRIPTOR
        whole = {} if rule.has_raw_body else self._body(body)
        for name, values in self._query_values().items():
            if rule.body == "*":
                raise _invalid(f"query parameter {name!r}: the fields of {kind.DESCRIPTOR.full_name} come in the body")
            _set(whole, message, name, values, "query parameter")
        for (field, is_long), value in zip(rule.fields, self._values, strict=True):
            text = _ENCODED_SLASH.sub("%25", value) if is_long else value
            try:
                text = unquote(text, errors="strict")
            except UnicodeDecodeError:
                raise _invalid(f"path variable {field!r}: {value!r} is not UTF-8") from None
            _set(whole, message, field, [text], "path variable")
        try:
            if not rule.has_raw_body:
                return kind.SerializeToString(message_of(whole, kind))
            filled = kind()
            self._fill_raw(filled, body, content_type)
            return kind.SerializeToString(json_format.ParseDict(whole, filled))
        except NOT_THE_MESSAGE as error:
            raise _invalid(f"the request is not a {kind.DESCRIPTOR.full_name}: {explain(error)}") from None

    def response(self, data: bytes) -> bytes:
        """Return a response message as JSON, or the field of it that the rule names."""
        kind, name = self.rule.method.response, self.rule.response_body
        if not name:
            return print_message(data, kind)
        key = kind.DESCRIPTOR.fields_by_name[name].json_name
        message = kind.FromString(data)
        whole = json_format.MessageToDict(message)
        if key not in whole:
            whole = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
        return dump(whole.get(key))

    def raw_response(self, data: bytes) -> tuple[bytes, bytes]:
        """Return content-type and bytes of a response that is a ``google.api.HttpBody``.

        https://github.com/googleapis/googleapis/blob/master/google/api/httpbody.proto

        Raises:
            FrameError: INTERNAL: its ``content_type`` can't be a header.
        """
        name = self.rule.response_body
        message: Any = self.rule.method.response.FromString(data)
        if name:
            message = getattr(message, _field(type(message).DESCRIPTOR, name).name)
        kind = message.content_type
        if not kind.isascii() or not kind.isprintable():
            raise FrameError(
                INTERNAL,
                f"the content_type {kind!r} of the google.api.HttpBody of {self.rule.method.path} can't be a header: "
                "it is printable ASCII, such as 'image/png'",
            )
        return kind.encode() or OCTETS, message.data

    def _fill_raw(self, message: Any, body: bytes | bytearray, content_type: bytes) -> None:
        if self.rule.body != "*":
            if not body and not content_type:
                return
            message = getattr(message, _field(type(message).DESCRIPTOR, self.rule.body).name)
        message.content_type = content_type.decode("latin-1")
        message.data = bytes(body)

    def _query_values(self) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(self._query, keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise _invalid(f"the query {self._query!r} is not UTF-8") from None
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return values

    def _body(self, body: bytes | bytearray) -> dict[str, Any]:
        rule = self.rule
        if not rule.body:
            if body.strip():
                raise _invalid(f"{rule.verb} {rule.template} takes no body")
            return {}
        if not body.strip():
            return {}
        try:
            value = load(body)
        except (ValueError, RecursionError) as error:
            raise _invalid(f"the body is not JSON: {error}") from None
        if rule.body != "*":
            return {rule.body: value}
        if not isinstance(value, dict):
            raise _invalid(f"the body is not a JSON object, as a {rule.method.request.DESCRIPTOR.full_name} is")
        return value


class HttpRules:
    """The routes of the methods of one server.

    Args:
        methods: The methods. A path that begins with one of their services is that of a method, and of no route: the
            ingress, which knows whom its rules allow what, decides so, too.
    """

    def __init__(self, methods: Iterable[Method]) -> None:
        methods = tuple(methods)
        self._services = tuple({f"{method.path.rpartition('/')[0]}/" for method in methods})
        rules = [rule for method in methods for rule in rules_of(method) if not self._is_of_service(rule)]
        self.rules = sorted(rules, key=lambda rule: rule.rank)

    def _is_of_service(self, rule: HttpRule) -> bool:
        """Return True if all paths of a rule begin with a service, and log that it is left out."""
        if not literal_prefix(rule.template).startswith(self._services):
            return False
        if rule.template != rule.method.path:  # which takes calls in JSON without a rule
            text = (
                "%s: a route of google.api.http is left out: the path %r begins with a service, as those of methods do"
            )
            logger.error(text, rule.method.path, rule.template)
        return True

    def match(self, verb: str, target: str) -> tuple[RuleMatch | None, frozenset[str]]:
        """Return the first rule that a request matches, and the verbs that its path can have.

        Args:
            verb: ``"GET"``.
            target: The path with its query.
        """
        path, _, query = target.partition("?")
        if path.startswith(self._services):
            return None, frozenset()
        verbs = set[str]()
        for rule in self.rules:
            found = rule.pattern.fullmatch(path)
            if found is not None:
                if rule.verb == verb or (rule.verb == _ANY_VERB and verb not in _NOT_CALLS):
                    return RuleMatch(rule, found.groups(), query), frozenset({verb})
                verbs.update(_VERBS_OF_CALLS if rule.verb == _ANY_VERB else (rule.verb,))
        return None, frozenset(verbs)


def rules_of(method: Method) -> Iterator[HttpRule]:
    """Yield the routes of a method; a rule that can't work is logged and left out."""
    descriptor = _descriptor(method)
    option = None if descriptor is None else custom_option(descriptor, _OPTION)
    if descriptor is None or option is None:
        return
    if "additional_bindings" not in option.DESCRIPTOR.fields_by_name:
        logger.warning("%s: its google.api.http is not that of googleapis, so it makes no routes", method.path)
        return
    for each in (option, *option.additional_bindings):
        try:
            yield _rule(method, descriptor, each)
        except ValueError as error:
            logger.error("%s: a route of google.api.http is left out: %s", method.path, error)


def http_routes(services: Iterable[Service]) -> tuple[JsonRoute, ...]:
    """Return the routes of these services as Envoy needs them, in the order in which they are tried."""
    rules = HttpRules(method for service in services for method in service.methods).rules
    return tuple(
        JsonRoute(literal_prefix(rule.template), rule.verb, rule.pattern.pattern, rule.method.path) for rule in rules
    )


def literal_prefix(template: str) -> str:
    """Return the part of a template before its first variable.

    Example:
        >>> literal_prefix("/v1/shelves/{shelf}/books")
        '/v1/shelves/'
    """
    return re.split(r"[{*]", template, maxsplit=1)[0]


def _descriptor(method: Method) -> MethodDescriptor | None:
    service, _, name = method.path[1:].partition("/")
    pool = descriptor_pool.Default()
    try:
        pool.FindExtensionByName(_OPTION)
        return pool.FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return None


def _rule(method: Method, descriptor: MethodDescriptor, option: Any) -> HttpRule:
    kind = option.WhichOneof("pattern")
    if kind == "custom":
        verb, template = option.custom.kind.upper(), option.custom.path
        if verb in _NOT_CALLS:
            raise ValueError(f"requests with the verb {verb} of {template!r} are not calls")
    else:
        verb, template = (kind or "").upper(), getattr(option, kind) if kind in _VERBS else ""
    if not template.startswith("/"):
        raise ValueError(f"the path {template!r} does not begin with '/'")
    if not template.isascii() or not template.isprintable() or " " in template:
        raise ValueError(f"the path {template!r} has characters that no path has: write them percent-encoded")
    has_raw_body = bool(option.body) and is_http_body(descriptor.input_type, option.body.removeprefix("*"))
    has_raw_response = is_http_body(descriptor.output_type, option.response_body)
    pattern, fields = _compile(template)
    for name, _ in fields:
        field = _resolve(descriptor.input_type, name)
        if is_repeated(field) or (field.message_type is not None and field.message_type.full_name not in _VALUES):
            raise ValueError(f"the variable {name!r} of {template!r} is not a field with one value")
    return HttpRule(
        method, verb, template, pattern, fields, option.body, option.response_body, _rank(template), has_raw_body,
        has_raw_response,
    )  # fmt: skip


def is_http_body(message: Descriptor, field: str) -> bool:
    """Return True if a message, or the field of it that is named, is a ``google.api.HttpBody``.

    Raises:
        ValueError: There is no such field.
    """
    if not field:
        return message.full_name == HTTP_BODY
    found = _field(message, field)
    return found.message_type is not None and found.message_type.full_name == HTTP_BODY and not is_repeated(found)


def _compile(template: str) -> tuple[re.Pattern[str], tuple[tuple[str, bool], ...]]:
    fields, text, end = [], "", 0
    for piece in _PIECE.finditer(template):
        if piece.start() != end:
            break
        end = piece.end()
        if piece["text"] is not None:
            text += _wildcards(piece["text"])
            continue
        pattern = piece["pattern"] or "*"
        fields.append((piece["field"], pattern != "*"))
        text += f"({_wildcards(pattern)})"
    if end != len(template):
        raise ValueError(f"the path {template!r} is not a template")
    return re.compile(text), tuple(fields)


def _wildcards(text: str) -> str:
    # Not greedy, so that a verb such as `:cancel` after a wildcard is not a part of it.
    kinds = {"*": "[^/]+?", _MANY_SEGMENTS: ".*?"}
    return "".join(kinds.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", text))


def _rank(template: str) -> tuple[int, ...]:
    plain = re.sub(r"\{[\w.]+\}", "*", template)
    plain = re.sub(r"\{[\w.]+=([^{}]+)\}", r"\1", plain)
    return tuple(map(_rank_of_segment, plain.split("/")))


def _rank_of_segment(segment: str) -> int:
    """Return 0 for a literal segment, 2 for ``*``, 4 for ``**``, and one less with a verb, such as ``*:cancel``."""
    wildcards = segment.count("*")
    if not wildcards:
        return 0
    return 2 * min(wildcards, 2) - (not segment.endswith("*"))


def _resolve(message: Descriptor, path: str) -> FieldDescriptor:
    names = path.split(".")
    for name in names[:-1]:
        inner = _field(message, name)
        if inner.message_type is None or is_repeated(inner):
            raise ValueError(f"{name!r} in {path!r} is not a message")
        message = inner.message_type
    return _field(message, names[-1])


def _field(message: Descriptor, name: str) -> FieldDescriptor:
    field = message.fields_by_name.get(name)
    if field is None:
        field = next((each for each in message.fields if each.json_name == name), None)
    if field is None:
        raise ValueError(f"{message.full_name} has no field {name!r}")
    return field


def _set(whole: dict[str, Any], message: Descriptor, path: str, values: list[str], what: str) -> None:
    """Set a field of the JSON value from text.

    Raises:
        FrameError: There is no such field, or it takes no text.
    """
    try:
        field = _resolve(message, path)
    except ValueError as error:
        raise _invalid(f"{what} {path!r}: {error}") from None
    if field.message_type is not None and field.message_type.full_name not in _VALUES:
        raise _invalid(f"{what} {path!r} is a message: only fields of it can be set, as in '{path}.field=value'")
    if len(values) > 1 and not is_repeated(field):
        raise _invalid(f"{what} {path!r} is given {len(values)} times, but is not repeated")
    at = whole
    owner = message
    for name in path.split(".")[:-1]:
        inner = _field(owner, name)
        at = _inner(at, inner, what, path)
        assert inner.message_type is not None
        owner = inner.message_type
    at.pop(field.name, None)
    converted = [_value(field, value) for value in values]
    at[field.json_name] = converted if is_repeated(field) else converted[0]


def _inner(at: dict[str, Any], field: FieldDescriptor, what: str, path: str) -> dict[str, Any]:
    value = at.pop(field.name) if field.name in at and field.name != field.json_name else at.get(field.json_name)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise _invalid(f"{what} {path!r}: the body has {field.name!r} as something other than an object")
    at[field.json_name] = value
    return value


def _value(field: FieldDescriptor, text: str) -> Any:
    name = "" if field.message_type is None else field.message_type.full_name
    if field.type == field.TYPE_BOOL or name == "google.protobuf.BoolValue":
        return {"true": True, "false": False}.get(text, text)
    if name == "google.protobuf.FieldMask":
        # Paths, as names of parameters, may have the names of the proto.
        return re.sub("_([a-z])", lambda found: found[1].upper(), text)
    return text


def _invalid(text: str) -> FrameError:
    return FrameError(INVALID_ARGUMENT, text)
