"""Measurement of the examples with models: ``python -m tests.benchmarks.examples_bench``, in a minute.

Each is deployed on a local Ray behind its ingress, with one replica of each deployment, and called by one async client
on the same machine: requests in a second with 8 calls at once, and the median of a call alone; for the streamed tokens,
a call ends with its first one. Without the weights of ``embeddings`` it is left out.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import ray

import sdk
from tests.support.ports import free_port
from tests.support.readme import EXAMPLES, missing_package

SECONDS = 4.0
AT_ONCE = 8

sys.path[:0] = [str(folder) for folder in EXAMPLES]


def embeddings(target: str) -> tuple[Any, Callable[[Any], Awaitable[object]]]:
    from sentences_pb2 import Texts
    from sentences_sdk import EncoderClient

    request = Texts(texts=["The stock market fell sharply today."])
    return EncoderClient(target, timeout=60), lambda client: client.Encode(request)


def vision(target: str) -> tuple[Any, Callable[[Any], Awaitable[object]]]:
    from classifier_client import request_of
    from digit_model import digit_png

    from sdk.inference import GRPCInferenceServiceClient

    request = request_of(digit_png(3))
    return GRPCInferenceServiceClient(target, timeout=60), lambda client: client.ModelInfer(request)


def retrieval(target: str) -> tuple[Any, Callable[[Any], Awaitable[object]]]:
    from retrieval_pb2 import Query
    from retrieval_sdk import RetrieverClient

    request = Query(text="alcohol in Italian wines")
    return RetrieverClient(target, timeout=60), lambda client: client.Search(request)


def tokens(target: str) -> tuple[Any, Callable[[Any], Awaitable[object]]]:
    from language_model_pb2 import Prompt
    from language_model_sdk import LanguageModelClient

    async def first(client: Any) -> None:
        call = client.Generate(Prompt(text="The river"))
        await call.read()
        call.cancel()

    return LanguageModelClient(target, timeout=60), first


WORKS = {
    "embeddings": ("encoder_app", "app", embeddings),
    "vision": ("classifier_app", "app", vision),
    "retrieval": ("retrieval_app", "app", retrieval),
    "tokens": ("language_model_app", "LanguageModel.bind(step_s=0)", tokens),
}


async def measure(opened: tuple[Any, Callable[[Any], Awaitable[object]]]) -> dict[str, float]:
    client, call = opened
    async with client:
        alone = []
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            begun = time.perf_counter()
            await call(client)
            alone.append(time.perf_counter() - begun)

        ended = 0
        begun = time.perf_counter()
        until = begun + SECONDS

        async def repeat() -> None:
            nonlocal ended
            while time.perf_counter() < until:
                await call(client)
                ended += 1

        await asyncio.gather(*(repeat() for _ in range(AT_ONCE)))
        seconds = time.perf_counter() - begun
    return {"median_ms": round(statistics.median(alone) * 1000, 2), "per_s": round(ended / seconds, 1)}


def main() -> None:
    port = free_port()
    missing = {folder.name for folder in EXAMPLES if missing_package(folder)}
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        for name, (module, expression, work) in WORKS.items():
            if name in missing:
                continue
            app = eval(expression, vars(importlib.import_module(module)))
            sdk.run(app, name=name, options=sdk.GrpcOptions(port=port))
            print(json.dumps({"example": name, **asyncio.run(measure(work(f"127.0.0.1:{port}")))}), flush=True)
            sdk.delete(name)
        sdk.shutdown()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
