"""An example of a call for users to try: one method of a running application, with a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sdk._xds.snapshot import Snapshot

_MOST_FIELDS = 3
_Field = pb.FieldDescriptorProto
_TEXT, _OTHERS = {_Field.TYPE_STRING}, {_Field.TYPE_MESSAGE, _Field.TYPE_GROUP, _Field.TYPE_ENUM, _Field.TYPE_BYTES}


def example_call(
    snapshot: Snapshot, names: Collection[str], fetch: Callable[[str], bytes | None]
) -> tuple[str, str, str] | None:
    """Return a method to call: its application, ``"pkg.Service/Method"``, and a request as JSON; None without one.

    Args:
        snapshot: The routing table.
        names: The applications; the first that serves anything is taken.
        fetch: Returns the serialized ``FileDescriptorSet`` of a digest, or None.
    """
    for application in snapshot.applications:
        for deployment in application.deployments if application.name in names else ():
            data = fetch(deployment.descriptors) if deployment.services and deployment.descriptors else None
            found = data and _first_method(pb.FileDescriptorSet.FromString(data), deployment.services[0])
            if found:
                return application.name, *found
    return None


def _first_method(files: pb.FileDescriptorSet, service: str) -> tuple[str, str] | None:
    for file in files.file:
        prefix = f"{file.package}." if file.package else ""
        for declared in file.service:
            if prefix + declared.name == service and declared.method:
                # A stream is harder to read.
                method = min(declared.method, key=lambda each: each.client_streaming + each.server_streaming)
                return f"{service}/{method.name}", _request(files, method.input_type)
    return None


def _request(files: pb.FileDescriptorSet, message: str) -> str:
    """Return a request as JSON, with the first fields that have a plain type."""
    fields: dict[str, Any] = {}
    for file in files.file:
        prefix = f".{file.package}." if file.package else "."
        for declared in file.message_type:
            if prefix + declared.name == message:
                fields = {
                    field.json_name or field.name: _value(field)
                    for field in declared.field
                    if field.label != _Field.LABEL_REPEATED
                    and field.type not in _OTHERS
                    and not field.HasField("oneof_index")
                }
    return json.dumps(dict(list(fields.items())[:_MOST_FIELDS]))


def _value(field: pb.FieldDescriptorProto) -> Any:
    if field.type in _TEXT:
        return "you" if field.name == "name" else "text"
    return field.type == _Field.TYPE_BOOL or 1
