"""Measurement of the Open Inference Protocol: ``python -m tests.benchmarks.inference_bench``, in two minutes.

A model adds one to a tensor of 1 KB, 1 MB and 10 MB, raw FP32. It is served by :mod:`sdk.inference` in a Ray Serve
replica behind Envoy, by a servicer for ``grpc.aio`` written by hand, without a proxy, and by KServe's Python server.
All are up, and each answers in turn, five times. KServe needs its own environment, ``KSERVE_PYTHON=/path/to/python``,
with https://pypi.org/project/kserve/ in it; without it KServe is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc.aio
import numpy as np
import ray

import sdk
from sdk.inference import Arrays, InferenceService, Tensor, infer_request
from sdk.inference.messages import ModelInferRequest, ModelInferResponse
from tests.support.cluster import ROOT
from tests.support.ports import free_port

ROUNDS = 5
SECONDS = 2.0
#: Bytes of the tensor → calls at once.
WORKS = {1 << 10: 8, 1 << 20: 4, 10 << 20: 2}
METHOD = "/inference.GRPCInferenceService/ModelInfer"
_LIMITS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]

_KSERVE = """
from kserve import InferOutput, InferResponse, Model, ModelServer

class Adder(Model):
    def __init__(self):
        super().__init__("adder")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0].as_numpy()
        output = InferOutput("y", list(x.shape), "FP32")
        output.set_data_from_numpy(x + 1, binary_data=True)
        return InferResponse(payload.id, self.name, [output])

ModelServer().start([Adder()])
"""


@sdk.grpc_deployment(max_ongoing_requests=100)
class Adder(InferenceService):
    """Adds one."""

    inputs = (Tensor("x", "FP32", (-1,)),)
    outputs = (Tensor("y", "FP32", (-1,)),)

    async def infer(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] + np.float32(1)}


class Servicer(grpc.GenericRpcHandler):
    """The method as people write it for ``grpc.aio``."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            self.infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
        )

    async def infer(self, request: ModelInferRequest, context: object) -> ModelInferResponse:
        """Add one to the first tensor."""
        x = np.frombuffer(request.raw_input_contents[0], np.float32) + np.float32(1)
        output = ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=request.inputs[0].shape)
        return ModelInferResponse(
            model_name="adder", id=request.id, outputs=[output], raw_output_contents=[x.tobytes()]
        )


async def serve_bare(port: int) -> None:
    """Serve with ``grpc.aio`` until the process ends."""
    server = grpc.aio.server(options=_LIMITS)
    server.add_generic_rpc_handlers((Servicer(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


@contextlib.contextmanager
def process(*command: str) -> Iterator[None]:
    """Run a command meanwhile."""
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        started.terminate()
        started.wait(30)


async def measure(port: int, request: bytes, at_once: int) -> float:
    """Return calls a second. Messages pass as bytes, so that the client costs little."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_LIMITS) as channel:
        call: Any = channel.unary_unary(METHOD)
        response = ModelInferResponse.FromString(await call(request, wait_for_ready=True, timeout=60))
        values = np.frombuffer(response.raw_output_contents[0], np.float32)
        assert values[0] == 1, values
        done, begun = 0, time.perf_counter()

        async def repeat() -> None:
            nonlocal done
            while time.perf_counter() < begun + SECONDS:
                await call(request, timeout=60)
                done += 1

        await asyncio.gather(*(repeat() for _ in range(at_once)))
        return done / (time.perf_counter() - begun)


def main() -> None:
    ports = {"sdk": free_port(), "grpc.aio": free_port()}
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(process(sys.executable, "-m", __spec__.name, str(ports["grpc.aio"])))
        if kserve := os.environ.get("KSERVE_PYTHON"):
            ports["kserve"] = free_port()
            limits = [f"--grpc_max_{way}_message_length={64 << 20}" for way in ("receive", "send")]
            where = [f"--grpc_port={ports['kserve']}", f"--http_port={free_port()}"]
            cleanup.enter_context(process(kserve, "-c", _KSERVE, *where, *limits))
        os.environ.update(RAY_worker_niceness="0")  # that of the others: Ray gives its workers 15
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        cleanup.callback(ray.shutdown)
        options = sdk.GrpcOptions(port=ports["sdk"], max_receive_message_length=64 << 20)
        sdk.run(Adder.bind(), name="adder", options=options)
        cleanup.callback(sdk.shutdown)
        for size, at_once in WORKS.items():
            request = infer_request("adder", {"x": np.zeros(size // 4, np.float32)}).SerializeToString()
            rates: dict[str, list[float]] = {name: [] for name in ports}
            for _ in range(ROUNDS):
                for name, port in ports.items():
                    rates[name].append(asyncio.run(measure(port, request, at_once)))
            medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
            print(json.dumps({"bytes": size, "calls_at_once": at_once, "calls_per_s": medians}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(serve_bare(int(sys.argv[1])))
    else:
        main()
