"""Calls that Envoy holds: to a deployment without replicas that starts one for them.

Envoy asks the proxy, by its external authorization, whether such a call may go on; the proxy answers when there is a
replica. Envoy keeps the call meanwhile: its headers, and as much of its messages as flow control allows. Nothing of the
call goes through the proxy but the headers that are named here. For all other calls the filter is not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

#: The cluster of the proxy's server that lets calls wait.
GATE_CLUSTER = "hold"
#: Path of its one method.
CHECK_PATH = "/envoy.service.auth.v3.Authorization/Check"
TIMEOUT_KEY = "grpc-timeout"
#: What a check says of its call's route.
APPLICATION, DEPLOYMENT = "application", "deployment"
_FILTER = "hold"


def gate_filter() -> pb.HttpFilter:
    """Returns the filter that asks the proxy before a call goes on, for the routes that :func:`gate_config` enables."""
    return pb.HttpFilter(
        name=_FILTER,
        typed_config=pack(
            pb.ExtAuthz(
                transport_api_version=pb.V3,
                grpc_service=pb.GrpcService(
                    envoy_grpc=pb.GrpcService.EnvoyGrpc(cluster_name=GATE_CLUSTER),
                    timeout=Duration(),  # zero is "never"; the proxy keeps the call's deadline
                ),
                allowed_headers=pb.ListStringMatcher(patterns=[pb.StringMatcher(exact=TIMEOUT_KEY)]),
                # When the proxy is gone, the call goes where it would without it: UNAVAILABLE, and not
                # PERMISSION_DENIED, if there is still no replica.
                failure_mode_allow=True,
            )
        ),
        disabled=True,
    )


def gate_config(application: str = "", deployment: str = "") -> dict[str, Any]:
    """Returns the part of a route that enables the filter.

    Args:
        application: The application that the route leads to; empty when the route is not the last word.
        deployment: Its deployment.
    """
    names = {APPLICATION: application, DEPLOYMENT: deployment} if deployment else {}
    return {_FILTER: pack(pb.ExtAuthzPerRoute(check_settings=pb.CheckSettings(context_extensions=names)))}


def allow(headers: Iterable[pb.HeaderValueOption] = ()) -> pb.CheckResponse:
    """Returns the answer that lets a call go on, with these headers in place of its own."""
    return pb.CheckResponse(status=pb.Status(), ok_response=pb.OkHttpResponse(headers=headers))


def deny(headers: Iterable[pb.HeaderValueOption], details: str) -> pb.CheckResponse:
    """Returns the answer that ends a call with these headers, ``grpc-status`` among them, and a status message."""
    return pb.CheckResponse(
        status=pb.Status(code=7),  # PERMISSION_DENIED for Envoy's eyes; the client reads the headers
        denied_response=pb.DeniedHttpResponse(headers=headers, body=details),
    )
