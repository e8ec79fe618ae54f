"""The gate: Envoy's external authorization holds calls to a deployment without replicas.

Envoy asks the proxy whether such a call may proceed, and the proxy answers when there is a replica. Meanwhile Envoy
keeps the call: its headers, and as much of its messages as flow control allows. The proxy sees only the headers that
are named here. The filter is disabled for all other calls.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

#: The cluster of the proxy's ext_authz server.
GATE_CLUSTER = "gate"
#: Path of its method.
# https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/auth/v3/external_auth.proto
CHECK_PATH = "/envoy.service.auth.v3.Authorization/Check"
TIMEOUT_KEY = "grpc-timeout"
#: The same of a call over Connect or JSON, and the header that says so.
WEB_TIMEOUT_KEY, CONTENT_TYPE_KEY = "connect-timeout-ms", "content-type"
#: Context extensions of a check request, set by the route.
APPLICATION, DEPLOYMENT = "application", "deployment"
_FILTER = "gate"


def gate_filter() -> pb.HttpFilter:
    """Return the ext_authz filter. It is disabled except on routes with :func:`gate_config`."""
    return pb.HttpFilter(
        name=_FILTER,
        typed_config=pack(
            pb.ExtAuthz(
                transport_api_version=pb.V3,
                grpc_service=pb.GrpcService(
                    envoy_grpc=pb.GrpcService.EnvoyGrpc(cluster_name=GATE_CLUSTER),
                    timeout=Duration(),  # zero disables it; the proxy enforces the call's deadline
                ),
                allowed_headers=pb.ListStringMatcher(
                    patterns=[pb.StringMatcher(exact=key) for key in (TIMEOUT_KEY, WEB_TIMEOUT_KEY, CONTENT_TYPE_KEY)]
                ),
                # If the proxy is gone, the call is routed as if the filter were disabled: it ends UNAVAILABLE, not
                # PERMISSION_DENIED, if the deployment still has no replica.
                failure_mode_allow=True,
            )
        ),
        disabled=True,
    )


def gate_config(application: str = "", deployment: str = "") -> dict[str, Any]:
    """Return the ``typed_per_filter_config`` entry that enables the filter on a route.

    Args:
        application: Application of the route; empty if Envoy will select another route for the call.
        deployment: Deployment of the route; empty likewise.
    """
    names = {APPLICATION: application, DEPLOYMENT: deployment} if deployment else {}
    return {_FILTER: pack(pb.ExtAuthzPerRoute(check_settings=pb.CheckSettings(context_extensions=names)))}


def allow(headers: Iterable[pb.HeaderValueOption] = ()) -> pb.CheckResponse:
    """Return the response that lets a call proceed, with these headers replaced."""
    return pb.CheckResponse(status=pb.Status(), ok_response=pb.OkHttpResponse(headers=headers))


def deny(
    http_status: pb.StatusCode.ValueType, headers: Iterable[pb.HeaderValueOption], details: str
) -> pb.CheckResponse:
    """Return the response that ends a call.

    Args:
        http_status: HTTP status of a call that is not gRPC; ``local_replies.py`` writes its body by this.
        headers: Headers of the response, including ``grpc-status``.
        details: The status message.
    """
    return pb.CheckResponse(
        status=pb.Status(code=7),  # PERMISSION_DENIED makes Envoy end the call; the client gets the headers' status
        denied_response=pb.DeniedHttpResponse(status=pb.HttpStatus(code=http_status), headers=headers, body=details),
    )
