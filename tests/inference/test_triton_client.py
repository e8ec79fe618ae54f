"""Triton's own client, unmodified, in a separate environment: it needs an older protobuf."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sdk.testing
from tests.inference.test_service import Doubler

ROOT = Path(__file__).parents[2]
PACKAGE = "tritonclient[grpc]==2.73.0"
SCRIPT = """
import asyncio, queue, sys
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

numbers = triton.InferInput("x", [3], "FP32")
numbers.set_data_from_numpy(np.array([1, 2, 3], "f4"))
with triton.InferenceServerClient(sys.argv[1]) as client:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("doubler")
    assert client.get_server_metadata().name == "ray-grpc-sdk"
    assert client.get_model_metadata("doubler").inputs[0].datatype == "FP32"
    for compression in (None, "gzip", "deflate"):
        outputs = [triton.InferRequestedOutput("y")]
        result = client.infer("doubler", [numbers], outputs=outputs, request_id="7", compression_algorithm=compression)
        assert (result.as_numpy("y").tolist(), result.get_response().id) == ([2, 4, 6], "7")
    assert client.get_model_repository_index().models[0].name == "doubler"
    client.load_model("doubler")
    for call in (lambda: client.infer("other", [numbers]), lambda: client.unload_model("doubler")):
        try:
            call()
        except InferenceServerException as error:
            print(error.status(), error.message())
    results = queue.Queue()
    client.start_stream(lambda result, error: results.put((result, error)))
    client.async_stream_infer("doubler", [numbers])
    client.async_stream_infer("other", [numbers])
    assert results.get(timeout=20)[0].as_numpy("y").tolist() == [2, 4, 6]
    print(results.get(timeout=20)[1].message())
    client.stop_stream()


async def call() -> None:
    async with triton_aio.InferenceServerClient(sys.argv[1]) as client:
        assert (await client.infer("doubler", [numbers])).as_numpy("y").tolist() == [2, 4, 6]


asyncio.run(call())
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return the interpreter of an environment with the client only."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, str(ROOT / ".ci" / "install.py"), "--uv-only"]
    subprocess.run([*install, "pip", "install", "--quiet", "--python", str(python), PACKAGE], check=True)
    return python


def test_tritons_client(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sdk.testing.serve(Doubler.bind()) as server:
        done = subprocess.run([python, "-c", SCRIPT, server.target], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    missing = "Model 'other' not found; there is 'doubler'."
    assert done.stdout.splitlines() == [
        f"StatusCode.NOT_FOUND {missing}",
        "StatusCode.FAILED_PRECONDITION Model 'doubler' can't be unloaded.",
        f"NOT_FOUND: {missing}",
    ]

    # The guide's model and its client.
    guide = (ROOT / "docs" / "guides" / "inference.md").read_text()
    model, client = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)[:2]
    (tmp_path / "model_app.py").write_text(model)
    monkeypatch.syspath_prepend(tmp_path)
    with sdk.testing.serve(importlib.import_module("model_app").app) as server:
        client = client.replace("localhost:9000", server.target)
        done = subprocess.run([python, "-c", client], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[[2. 4. 6.]] [b'2']\n", "")
