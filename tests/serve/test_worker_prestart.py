"""Worker processes that Ray starts early: what Ray is asked, and that a cluster that refuses changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from ray.core.generated import gcs_pb2, gcs_service_pb2, node_manager_pb2

from sdk._serve.worker_prestart import prestart_workers
from tests.support.ports import free_port

ENVIRONMENT = {"env_vars": {"PYTHONPATH": "/work/shop"}}


class FakeRay(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The GCS of a cluster and the raylet of its head node, on one port.

    Attributes:
        requests: The requests to start workers.
        has_serve: Whether Ray Serve runs there.
        refused: The method that this version of Ray does not have.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.has_serve, self.refused = False, ""
        self._server = grpc.server(ThreadPoolExecutor(1), handlers=[self])
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self._port}"
        self._server.start()

    def service(self, call: Any) -> Any:
        method = call.method.rpartition("/")[2]
        return None if method == self.refused else grpc.unary_unary_rpc_method_handler(getattr(self, method))

    def stop(self) -> None:
        self._server.stop(None).wait()

    def GetAllNodeInfo(self, request: bytes, context: object) -> bytes:  # the name in Ray's proto
        node = gcs_pb2.GcsNodeInfo
        dead = node(is_head_node=True, state=node.DEAD, node_manager_address="127.0.0.1", node_manager_port=1)
        other = node(state=node.ALIVE, node_manager_address="127.0.0.1", node_manager_port=2)
        head = node(is_head_node=True, node_manager_address="127.0.0.1", node_manager_port=self._port)
        reply = gcs_service_pb2.GetAllNodeInfoReply(node_info_list=[dead, other, head])
        return bytes(reply.SerializeToString())

    def GetNamedActorInfo(self, request: bytes, context: object) -> bytes:  # the name in Ray's proto
        asked = gcs_service_pb2.GetNamedActorInfoRequest.FromString(request)
        assert (asked.name, asked.ray_namespace) == ("SERVE_CONTROLLER_ACTOR", "serve")
        reply = gcs_service_pb2.GetNamedActorInfoReply()
        if self.has_serve:
            reply.actor_table_data.actor_id = b"controller"
        return bytes(reply.SerializeToString())

    def PrestartWorkers(self, request: bytes, context: object) -> bytes:  # the name in Ray's proto
        self.requests.append(node_manager_pb2.PrestartWorkersRequest.FromString(request))
        return b""


@pytest.fixture
def fake() -> Iterator[FakeRay]:
    started = FakeRay()
    yield started
    started.stop()


@pytest.mark.parametrize(("has_serve", "workers"), [(False, 4), (True, 1)], ids=["first application", "another one"])
def test_the_head_node_starts_the_workers_of_an_application(fake: FakeRay, has_serve: bool, workers: int) -> None:
    fake.has_serve = has_serve
    prestart_workers(fake.address, ENVIRONMENT)
    (request,) = fake.requests
    assert request.num_workers == workers
    assert not request.HasField("job_id")
    assert request.runtime_env_info.serialized_runtime_env == '{"env_vars": {"PYTHONPATH": "/work/shop"}}'


@pytest.mark.parametrize("refused", ["GetAllNodeInfo", "GetNamedActorInfo", "PrestartWorkers"])
def test_without_a_method_of_ray_nothing_is_started(fake: FakeRay, refused: str) -> None:
    fake.refused = refused
    prestart_workers(fake.address, ENVIRONMENT)
    assert fake.requests == []


def test_a_cluster_that_has_gone() -> None:
    prestart_workers(f"127.0.0.1:{free_port()}", ENVIRONMENT)
