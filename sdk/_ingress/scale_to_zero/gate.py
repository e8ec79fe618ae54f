"""The gate: Envoy asks here if a call to a deployment that was scaled to zero may continue (see ``ext_authz``).

The answer comes when this proxy's Envoy has a replica to send the call to. Meanwhile the controller is told how many
calls wait, and has replicas started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from sdk._gen import envoy_pb2 as pb
from sdk._ingress.builtin.services import no_route_status
from sdk._ingress.scale_to_zero.waiting_calls import ALLOW, Decision, DeploymentKey, WaitingCalls
from sdk._wire.metadata import parse_timeout
from sdk._xds.ext_authz import APPLICATION, CHECK_PATH, DEPLOYMENT, TIMEOUT_KEY, allow, deny
from sdk._xds.listener import set_header
from sdk._xds.snapshot import Snapshot

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment

logger = logging.getLogger("sdk.ingress")

# Envoy acknowledges what its main thread has; each worker thread knows a moment later.
_SETTLE_S = 0.05
# Seconds between two reports to the controller while calls wait, and at least between any two.
_REPORT_S, _REPORT_GAP_S = 0.5, 0.05
# The longest grpc-timeout has eight digits.
_LONGEST_TIMEOUT_MS = 99_999_999

#: Tells the controller how many calls wait for which deployment; returns why some of these can't start.
ReportWaitingCalls = Callable[[Mapping[DeploymentKey, int]], Awaitable[Mapping[DeploymentKey, str]]]


class Gate:
    """Answers Envoy's checks.

    Args:
        report: Tells the controller how many calls wait.
        settle_s: Seconds between Envoy's acknowledgement of a replica and the first call to it.
    """

    def __init__(self, report: ReportWaitingCalls, *, settle_s: float = _SETTLE_S) -> None:
        self._report = report
        # The ingress's limit for a call; the time that it waits counts.
        self._request_timeout_s: float | None = None
        self._settle_s = settle_s
        self._changed = asyncio.Event()
        self._waiting_calls = WaitingCalls(on_change=self._changed.set)
        self._serving: dict[DeploymentKey, Deployment] = {}
        self._coming: dict[DeploymentKey, Deployment] = {}
        # Since when Envoy has had a replica of a deployment.
        self._open: dict[DeploymentKey, float] = {}

    @property
    def waiting(self) -> dict[DeploymentKey, int]:
        """How many calls wait for each deployment."""
        return self._waiting_calls.counts

    def generic_handler(self) -> grpc.GenericRpcHandler:  # type: ignore[type-arg]  # generic in the stubs only
        """Return what answers the checks of a gRPC server."""
        service, _, method = CHECK_PATH.lstrip("/").rpartition("/")
        check = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=pb.CheckRequest.FromString,
            response_serializer=pb.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(service, {method: check})

    def on_publish(self, snapshot: Snapshot) -> None:
        """Take note of a routing table that Envoy is about to get: calls wait for what will have no replica."""
        self._coming = _by_key(snapshot)
        self._request_timeout_s = snapshot.request_timeout_s
        self._open = {key: since for key, since in self._open.items() if _has_replica(self._coming, key)}

    def on_acknowledged(self, snapshot: Snapshot) -> None:
        """Take note that Envoy has acknowledged a routing table: calls go on that have a replica now."""
        self._coming = self._serving = _by_key(snapshot)
        self._request_timeout_s = snapshot.request_timeout_s
        for key in self._serving:
            if _has_replica(self._serving, key):
                self._open.setdefault(key, time.monotonic())
        for key in self._waiting_calls.counts:
            if key in self._open:
                asyncio.get_running_loop().call_later(self._settle_s, self._release, key)
            elif (status := self._reject_status(key)) is not None:
                self._waiting_calls.answer(key, status)

    async def report_forever(self) -> None:
        """Tell the controller who waits, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            counts = self._waiting_calls.counts
            try:
                troubles = await self._report(counts)
            except Exception as error:  # the controller is being restarted; the calls go on waiting
                logger.warning("the ingress controller can't be told of waiting calls (%s)", type(error).__name__)
                troubles = {}
            for key, reason in troubles.items():
                details = f"No replica of application {key[0]!r} can be started: {reason}"
                self._waiting_calls.answer(key, Decision(grpc.StatusCode.UNAVAILABLE, details))
            await asyncio.sleep(_REPORT_GAP_S)
            if self._waiting_calls.counts:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _REPORT_S)
                self._changed.set()

    # -- inside -------------------------------------------------------------------------------

    async def _check(self, request: pb.CheckRequest, _: Any) -> pb.CheckResponse:
        names = request.attributes.context_extensions
        if DEPLOYMENT not in names:
            return allow()  # its route turned out to lead to a deployment that has replicas
        key = names[APPLICATION], names[DEPLOYMENT]
        began = time.monotonic()
        text = request.attributes.request.http.headers.get(TIMEOUT_KEY)
        timeout_s = parse_timeout(text.encode()) if text is not None else None
        late, limit_s = "Deadline exceeded.", self._request_timeout_s
        if limit_s is not None and (timeout_s is None or limit_s < timeout_s):
            timeout_s, late = limit_s, f"Request timed out after {limit_s}s."
        decision = await self._decide(key, timeout_s, late)
        if decision is not ALLOW:
            return deny([set_header("grpc-status", str(decision.code.value[0]))], decision.details)
        if timeout_s is None:
            return allow()
        # What is left of it: the replica counts from when it sees the call.
        left_ms = math.ceil((timeout_s - (time.monotonic() - began)) * 1000)
        return allow([set_header(TIMEOUT_KEY, f"{min(max(left_ms, 1), _LONGEST_TIMEOUT_MS)}m")])

    async def _decide(self, key: DeploymentKey, timeout_s: float | None, late: str) -> Decision:
        since = self._open.get(key)
        if since is not None:
            await asyncio.sleep(max(0.0, since + self._settle_s - time.monotonic()))
            if key in self._open:
                return ALLOW
        status = self._reject_status(key)
        if status is not None:
            return status
        return await self._waiting_calls.enter(key, limit=self._coming[key].max_waiting, timeout_s=timeout_s, late=late)

    def _release(self, key: DeploymentKey) -> None:
        if key in self._open:
            self._waiting_calls.answer(key, ALLOW)

    def _reject_status(self, key: DeploymentKey) -> Decision | None:
        """Return how a call ends that can't wait for a deployment without replicas."""
        application = key[0]
        if not any(name == application for name, _ in self._coming):
            return Decision(*no_route_status(Snapshot(0), "", application))
        if key not in self._coming or not self._coming[key].max_waiting:
            return Decision(grpc.StatusCode.UNAVAILABLE, f"No replica of application {application!r} is ready.")
        return None


def _by_key(snapshot: Snapshot) -> dict[DeploymentKey, Deployment]:
    return {
        (application.name, deployment.name): deployment
        for application in snapshot.applications
        for deployment in application.deployments
    }


def _has_replica(deployments: Mapping[DeploymentKey, Deployment], key: DeploymentKey) -> bool:
    return key in deployments and bool(deployments[key].endpoints)
