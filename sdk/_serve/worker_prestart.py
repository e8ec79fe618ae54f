"""Let Ray start the worker processes of the first actors early, while this process still imports Ray Serve.

A new actor waits for a process that starts Python and imports Ray, unless an idle one has its runtime environment. The
ingress, Ray Serve's controller and the first replica are created one after another, so most of that time can be saved.
It uses private names of Ray, checked with Ray 2.60. If any of this fails, the actors start as without it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Any

import grpc

logger = logging.getLogger("sdk.serve")

# Ray Serve's controller, the ingress controller, a proxy, and a replica; of an application next to others, the replica.
_FIRST_ACTORS, _NEXT_ACTORS = 4, 1
_ANSWER_S = 1.0
# Seconds after which Ray may end a worker that no actor has taken.
_KEPT_S = 20


def prestart_workers(address: str, runtime_env: Mapping[str, Any]) -> None:
    """Let the head node of a cluster start workers for the actors of an application.

    Args:
        address: Address of its GCS, which has accepted this user's token.
        runtime_env: The runtime environment that the job of this process will have.
    """
    from ray._private.grpc_utils import init_grpc_channel

    try:
        with init_grpc_channel(address) as gcs:
            address_of_raylet = _head_raylet(gcs)
            count = _NEXT_ACTORS if _has_serve(gcs) else _FIRST_ACTORS
        if address_of_raylet:
            with init_grpc_channel(address_of_raylet) as raylet:
                _prestart(raylet, runtime_env, count)
    except grpc.RpcError as error:
        logger.debug("no workers are started early: %s", error)


def _head_raylet(gcs: grpc.Channel) -> str:
    """Return the address of the head node's raylet; empty without one."""
    messages = _messages("gcs_service")
    request = messages.GetAllNodeInfoRequest()
    reply = _call(gcs, "NodeInfoGcsService/GetAllNodeInfo", request, messages.GetAllNodeInfoReply)
    for node in reply.node_info_list:
        if node.is_head_node and node.state == node.ALIVE:
            return f"{node.node_manager_address}:{node.node_manager_port}"
    return ""


def _has_serve(gcs: grpc.Channel) -> bool:
    messages = _messages("gcs_service")
    request = messages.GetNamedActorInfoRequest(name="SERVE_CONTROLLER_ACTOR", ray_namespace="serve")
    reply = _call(gcs, "ActorInfoGcsService/GetNamedActorInfo", request, messages.GetNamedActorInfoReply)
    return bool(reply.actor_table_data.actor_id)


def _prestart(raylet: grpc.Channel, runtime_env: Mapping[str, Any], count: int) -> None:
    from ray._private.utils import get_runtime_env_info
    from ray.runtime_env import RuntimeEnv

    messages = _messages("node_manager")
    # Without a job: an actor of any job may take the worker, also one of Ray Serve that another program has started.
    request = messages.PrestartWorkersRequest(
        language=_messages("common").PYTHON,
        runtime_env_info=get_runtime_env_info(RuntimeEnv(**runtime_env)),
        keep_alive_duration_secs=_KEPT_S,
        num_workers=count,
    )
    _call(raylet, "NodeManagerService/PrestartWorkers", request, messages.PrestartWorkersReply)


def _messages(proto: str) -> Any:
    return importlib.import_module(f"ray.core.generated.{proto}_pb2")  # generated without types


def _call(channel: grpc.Channel, method: str, request: Any, reply: Any) -> Any:
    call: Any = channel.unary_unary(
        f"/ray.rpc.{method}", request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
    )
    return call(request, timeout=_ANSWER_S)
