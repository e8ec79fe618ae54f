"""A program: Ray in a pod's environment, with the applications of a config, until its standard input ends.

It deploys as KubeRay does, through Ray Serve's config API, so that a replica creates the ingress.
"""

from __future__ import annotations

import sys

import ray
import yaml
from quotes_pb2 import PickRequest
from quotes_sdk import QuotesHandle
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from tests.support.small_ray import leave_out_processes


def main(address: str, config: str) -> None:
    leave_out_processes()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address=address)
    schema = ServeDeploySchema.model_validate(yaml.safe_load(config))
    serve.start(proxy_location=schema.proxy_location)
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(schema, _blocking=True)
    handle = QuotesHandle.of_application("english")
    print("deployed", flush=True)
    texts = [handle.Pick(PickRequest(), timeout=60).result().text for _ in range(2)]
    print(*texts, "by Ray's handle" if handle._target is None else "by the wire", flush=True)
    sys.stdin.read()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
