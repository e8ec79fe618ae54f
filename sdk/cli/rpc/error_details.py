"""The messages of ``google.rpc`` in the details of a status: https://google.aip.dev/193."""

from __future__ import annotations

import contextlib
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # it has no types

from sdk._protos.descriptors import well_known


def with_error_details(pool: Any) -> Any:
    """Return a pool with the messages of ``google.rpc`` for details of a status added, if its files lack them."""
    try:
        pool.FindMessageTypeByName("google.rpc.BadRequest")
    except KeyError:
        try:
            pool.FindFileByName("google/protobuf/duration.proto")
        except KeyError:
            duration = well_known("google/protobuf/duration.proto")
            assert duration is not None
            pool.AddSerializedFile(duration.SerializeToString())
        file = FileDescriptorProto()
        error_details_pb2.DESCRIPTOR.CopyToProto(file)
        with contextlib.suppress(TypeError):  # the server's files define other messages of these names
            pool.AddSerializedFile(file.SerializeToString())
    return pool
