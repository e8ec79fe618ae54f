"""Comparison of two versions of services, for clients of the old one, on the wire.

Old clients write requests that the new server reads; the new server writes responses that old clients read. So each
message is compared in the directions in which it is sent: a change that is harmless in a request may break a response.
The rules for messages are in ``messages.py``; they follow
https://protobuf.dev/programming-guides/proto3/#updating.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import MethodOptions

from sdk._protos.breaking.http import check_http, http_routes
from sdk._protos.breaking.messages import KEEP_NAME, MessageComparison
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    from sdk._protos.descriptors import Descriptors

_PROMISES = {
    MethodOptions.IDEMPOTENCY_UNKNOWN: 0,
    MethodOptions.IDEMPOTENT: 1,
    MethodOptions.NO_SIDE_EFFECTS: 2,
}


def compare(
    old: Descriptors,
    new: Descriptors,
    services: Iterable[str],
    *,
    served: Iterable[str] | None = None,
    json: bool = False,
) -> list[Change]:
    """Return the changes that affect clients of services: of RPCs first, then of the messages that they use.

    Args:
        old: The files of the old version, whose clients must continue to work.
        new: The files of the new version.
        services: Full names of the old version's services to compare.
        served: Full names of the services that the new version serves; None for all that its files define.
        json: Also report, as warnings, changes that affect only clients that use JSON.

    Example:
        >>> from google.protobuf.descriptor_pb2 import FileDescriptorSet
        >>> from sdk._protos.descriptors import Descriptors
        >>> files = FileDescriptorSet()
        >>> compare(Descriptors(files, "old"), Descriptors(files, "new"), [])
        []
    """
    offered = dict(new.services)
    if served is not None:
        offered = {name: offered[name] for name in served}
    comparison = _ServiceComparison(old, new, MessageComparison(new, json), json)
    for name in services:
        comparison.check_service(name, offered)
    return [*comparison.changes, *comparison.messages.changes()]


class _ServiceComparison:
    """Compares services and their RPCs, and collects the messages to compare."""

    def __init__(self, old: Descriptors, new: Descriptors, messages: MessageComparison, json: bool) -> None:
        self._old, self._new, self._json = old, new, json
        self.messages = messages
        self.changes: list[Change] = []

    def check_service(self, name: str, offered: Mapping[str, ServiceDescriptor]) -> None:
        """Compare one service.

        Args:
            name: Full name of the service in the old version.
            offered: The services that the new version serves.
        """
        service = self._old.services[name]
        if name not in offered:
            self.changes.append(self._removed_service(service, offered))
            return
        methods = {method.name: method for method in service.methods}
        others = {method.name: method for method in offered[name].methods}
        for method in service.methods:
            if method.name in others:
                self._check_rpc(method, others[method.name])
            else:
                added = [other for other in others.values() if other.name not in methods]
                self.changes.append(self._removed_rpc(method, offered[name], added))

    def _removed_service(self, service: ServiceDescriptor, offered: Mapping[str, ServiceDescriptor]) -> Change:
        names = [method.name for method in service.methods]
        others = (other for name, other in offered.items() if name not in self._old.services)
        renamed = next((other for other in others if [method.name for method in other.methods] == names), None)
        remains = self._new.services.get(service.full_name)
        if renamed is not None:
            message, remedy = f"the service is gone; it looks renamed to `{renamed.full_name}`", "serve both names"
        elif remains is not None:
            message, remedy = "the service is still in the proto, but no class serves it", "serve it"
        else:
            message, remedy = "the service is gone", "keep it while clients call it"
        return Change(
            "service-removed",
            "error",
            service.full_name,
            f"{message}: every call ends UNIMPLEMENTED",
            remedy,
            f"service {service.name}",
            f"service {renamed.name}" if renamed is not None else "",
            self._new.location(renamed or remains) if renamed or remains else "",
        )

    def _removed_rpc(
        self, method: MethodDescriptor, service: ServiceDescriptor, added: list[MethodDescriptor]
    ) -> Change:
        renamed = next((other for other in added if _contract(other) == _contract(method)), None)
        hint = f"; it looks renamed to `{renamed.name}`" if renamed is not None else ""
        return Change(
            "rpc-removed",
            "error",
            method.full_name,
            f"the RPC is gone{hint}: calls to it end UNIMPLEMENTED",
            f"keep `{method.name}` in addition to `{renamed.name}`"
            if renamed is not None
            else "keep it while clients call it",
            _format_rpc(method),
            _format_rpc(renamed) if renamed is not None else "",
            self._new.location(renamed if renamed is not None else service),
        )

    def _check_rpc(self, old: MethodDescriptor, new: MethodDescriptor) -> None:
        if _streams(old) != _streams(new):
            self._note(
                "rpc-cardinality",
                old,
                new,
                f"`{_format_rpc(old)}` became `{_format_rpc(new)}`: client and server disagree on streaming",
                "keep it as it was, and add an RPC with another name",
            )
            return
        has_json = bool(http_routes(old))
        self.messages.add(
            old.input_type,
            new.input_type,
            "requests",
            lambda why: self._retyped(old, new, True, why),
            has_json=has_json,
        )
        self.messages.add(
            old.output_type,
            new.output_type,
            "responses",
            lambda why: self._retyped(old, new, False, why),
            has_json=has_json,
        )
        self.changes += check_http(old, new, self._new)
        before, now = old.GetOptions().idempotency_level, new.GetOptions().idempotency_level
        if _PROMISES[now] < _PROMISES[before] or (self._json and now != before):
            was, name = (MethodOptions.IdempotencyLevel.Name(level) for level in (before, now))
            effect, remedy = "clients continue to retry failed calls", f"`option idempotency_level = {was};`"
            if _PROMISES[now] > _PROMISES[before]:
                effect = "new clients retry failed calls, also at servers that still have the old version"
            self.changes.append(
                Change(
                    "rpc-idempotency",
                    "warning",
                    old.full_name,
                    f"`{was}` became `{name}`: {effect}",
                    f"keep {remedy} and its guarantee"
                    if _PROMISES[now] < _PROMISES[before]
                    else "update every server before the clients",
                    was,
                    name,
                    self._new.location(new),
                )
            )

    def _retyped(self, old: MethodDescriptor, new: MethodDescriptor, is_request: bool, why: str) -> None:
        before, now = ((method.input_type if is_request else method.output_type).full_name for method in (old, new))
        side = "request" if is_request else "response"
        effect = f"they differ on the wire: {why}" if why else "they are the same on the wire"
        self.changes.append(
            Change(
                f"rpc-{side}-type",
                "error" if why else "warning",
                old.full_name,
                f"the {side} `{before}` became `{now}`, and {effect}",
                f"keep `{before}`, and add an RPC for `{now}`" if why else KEEP_NAME,
                before,
                now,
                self._new.location(new),
            )
        )

    def _note(self, rule: str, old: MethodDescriptor, new: MethodDescriptor, message: str, remedy: str) -> None:
        self.changes.append(
            Change(
                rule,
                "error",
                old.full_name,
                message,
                remedy,
                _format_rpc(old),
                _format_rpc(new),
                self._new.location(new),
            )
        )


def _streams(method: MethodDescriptor) -> tuple[bool, bool]:
    return method.client_streaming, method.server_streaming


def _contract(method: MethodDescriptor) -> tuple[object, ...]:
    return *_streams(method), method.input_type.full_name, method.output_type.full_name


def _format_rpc(method: MethodDescriptor) -> str:
    takes = f"{'stream ' if method.client_streaming else ''}{method.input_type.name}"
    returns = f"{'stream ' if method.server_streaming else ''}{method.output_type.name}"
    return f"rpc {method.name}({takes}) returns ({returns})"
