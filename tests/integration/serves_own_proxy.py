"""A program: a separate cluster, where Ray Serve's own gRPC proxy serves a class of the SDK. Prints the responses."""

from __future__ import annotations

import json
import sys

import grpc
import ray
from probe_pb2 import Ask
from ray import serve
from ray.serve.config import gRPCOptions

from tests.integration import probes
from tests.integration.prober import METHODS, Prober


def main(grpc_port: int, http_port: int) -> None:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        servicers = ["probe_pb2_grpc.add_AsyncProbeServicer_to_server"]
        serve.start(
            http_options={"port": http_port},
            grpc_options=gRPCOptions(port=grpc_port, grpc_servicer_functions=servicers),
        )
        serve.run(probes.Async.bind({}), name="probe")
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            prober = Prober(channel, "AsyncProbe")
            for method in METHODS:
                ended = prober.ask(method, Ask(number=2), timeout=20, metadata=(("request_id", "mine"),))
                numbers = [reply.number for reply in ended.messages]
                print(json.dumps([method, ended.code.name, ended.trailing["request_id"], numbers]))
            ended = prober.ask("Unary", Ask(act="set code"), timeout=20)
            print(json.dumps([ended.code.name, ended.trailing["num"], ended.details]))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
