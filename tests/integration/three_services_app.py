"""An application with one deployment that serves three services. A separate module, because Ray Serve imports it."""

from __future__ import annotations

from typing import Any

from probe_sdk import AsyncProbeHandle, SyncProbeHandle

from sdk import grpc_deployment
from tests.integration.probes import Async
from tests.integration.typed_handle_apps import Inner, Outer, callees
from tests.validation.order_apps import QUICK, Strict


@grpc_deployment(validate="both", max_ongoing_requests=100, **QUICK)
class Everything(Outer, Async, Strict):
    """Serves three services, with checked messages and handles to other deployments."""

    def __init__(self, inner: AsyncProbeHandle, plain: SyncProbeHandle) -> None:
        Outer.__init__(self, inner, plain)
        Async.__init__(self, {})


def build(args: dict[str, str]) -> Any:
    return Everything.bind(*callees(Inner.bind(args["notes"])))
