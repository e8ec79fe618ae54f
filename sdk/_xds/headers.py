"""Headers that Envoy sets."""

from __future__ import annotations

from sdk._gen import envoy_pb2 as pb


def set_header(name: str, value: str) -> pb.HeaderValueOption:
    """Return a header that overwrites any header of the same name."""
    return pb.HeaderValueOption(
        header=pb.HeaderValue(key=name, value=value),
        append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
