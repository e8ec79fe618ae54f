"""The gate: the ext_authz server that holds calls to a deployment without replicas (see ``sdk._xds.ext_authz``).

The deployment is scaled to zero, or its only replica is being replaced. The gate answers when this proxy's Envoy has a
replica for the call. Meanwhile it reports the number of waiting calls to the controller, whose activator gets replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from sdk._channel.feed import DeploymentKey
from sdk._gen import envoy_pb2 as pb
from sdk._ingress.builtin.services import no_route_status
from sdk._ingress.deployments import Deployments
from sdk._ingress.scale_to_zero.waiting_calls import ALLOW, Decision, Refusal, WaitingCalls
from sdk._wire.metadata import encode_message, is_grpc, parse_timeout
from sdk._xds.ext_authz import (
    APPLICATION,
    CHECK_PATH,
    CONTENT_TYPE_KEY,
    DEPLOYMENT,
    TIMEOUT_KEY,
    WEB_TIMEOUT_KEY,
    allow,
    deny,
)
from sdk._xds.headers import set_header
from sdk._xds.snapshot import Snapshot

logger = logging.getLogger("sdk.ingress")

# Envoy's main thread sends the ACK; its worker threads get the new endpoints a moment later.
_SETTLE_S = 0.05
# Seconds between two reports to the controller while calls wait, and the minimum between any two.
_REPORT_S, _REPORT_GAP_S = 0.5, 0.05
# TimeoutValue has at most eight digits: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
_MAX_TIMEOUT_MS = 99_999_999

# HTTP status of a call over another protocol than gRPC.
_HTTP_STATUS = {
    grpc.StatusCode.NOT_FOUND: pb.NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: pb.TooManyRequests,
    grpc.StatusCode.UNAVAILABLE: pb.ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: pb.GatewayTimeout,
}

_NO_REPLICA = "no_replica"
_CLOSED = Decision(grpc.StatusCode.UNAVAILABLE, "This node is being drained.", "draining")

#: Reports the number of waiting calls by deployment; returns deployment → reason why it can't start.
ReportWaitingCalls = Callable[[Mapping[DeploymentKey, int]], Awaitable[Mapping[DeploymentKey, str]]]


class Gate:
    """Answers Envoy's ext_authz checks.

    Args:
        report: Reports the number of waiting calls to the controller.
        elsewhere: Returns the number of calls that wait in other programs, by deployment; see :meth:`notify`.
        settle_s: Seconds between Envoy's acknowledgement of a replica and the first call to it.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        report: ReportWaitingCalls,
        *,
        elsewhere: Callable[[], Mapping[DeploymentKey, int]] = dict,
        settle_s: float = _SETTLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._elsewhere = elsewhere
        self._clock = clock
        # Limit of the ingress for each call, including the time that it waits here.
        self._request_timeout_s: float | None = None
        self._settle_s = settle_s
        self._refused: Counter[Refusal] = Counter()
        self._is_closed = False
        self._changed = asyncio.Event()
        self._waiting_calls = WaitingCalls(on_change=self._changed.set)
        self._deployments = Deployments()
        self._published = self._deployments.by_key
        # Deployments with a replica of which Envoy has not acknowledged any.
        self._unacknowledged: set[DeploymentKey] = set()
        # Deployments with a replica → time of Envoy's acknowledgement.
        self._ready_since: dict[DeploymentKey, float] = {}

    @property
    def waiting(self) -> dict[DeploymentKey, int]:
        """Number of waiting calls by deployment, here and elsewhere."""
        total = dict(self._elsewhere())
        for key, number in self._waiting_calls.counts.items():
            total[key] = total.get(key, 0) + number
        return total

    def take_refused(self) -> Counter[Refusal]:
        """Return the number of calls that have been refused since the last time."""
        taken, self._refused = self._refused, Counter()
        return taken

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of checks for a gRPC server."""
        service, _, method = CHECK_PATH.lstrip("/").rpartition("/")
        check = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=pb.CheckRequest.FromString,
            response_serializer=pb.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(service, {method: check})

    def on_publish(self, snapshot: Snapshot) -> None:
        """Hold calls to deployments without replicas in a routing table that Envoy is about to get."""
        # Envoy does not see deployments that only other deployments call.
        for key in self._deployments.take(replace(snapshot, inner=())):
            if not self._has_replica(key):
                self._ready_since.pop(key, None)
            elif key not in self._ready_since:
                self._unacknowledged.add(key)
        self._request_timeout_s = snapshot.request_timeout_s

    def on_acknowledged(self, snapshot: Snapshot) -> None:
        """Release calls to deployments with replicas in a routing table that Envoy has acknowledged."""
        self.on_publish(snapshot)
        acknowledged, self._unacknowledged = self._unacknowledged, set()
        for key in filter(self._has_replica, acknowledged):
            self._ready_since.setdefault(key, self._clock())
        for key in self._waiting_calls.counts:
            if key in self._ready_since:
                asyncio.get_running_loop().call_later(self._settle_s, self._release, key)
            elif (status := self._reject_status(key)) is not None:
                self._waiting_calls.answer(key, status)

    def close(self) -> None:
        """End the waiting calls, and those that come: the proxy stops."""
        self._is_closed = True
        for key in self._waiting_calls.counts:
            self._waiting_calls.answer(key, _CLOSED)

    def notify(self) -> None:
        """Take that the number of calls that wait in other programs has changed: report soon."""
        self._changed.set()

    async def report_forever(self) -> None:
        """Report waiting calls to the controller, in a loop without end."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                reasons = await self._report(self.waiting)
            except Exception as error:  # the controller is being restarted; the calls keep waiting
                logger.warning("can't report waiting calls to the ingress controller (%s)", type(error).__name__)
                reasons = {}
            for key, reason in reasons.items():
                details = f"No replica of application {key[0]!r} can be started: {reason}"
                self._waiting_calls.answer(key, Decision(grpc.StatusCode.UNAVAILABLE, details, _NO_REPLICA))
            await asyncio.sleep(_REPORT_GAP_S)
            if self.waiting:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _REPORT_S)
                self._changed.set()

    # -- inside -------------------------------------------------------------------------------

    async def _check(self, request: pb.CheckRequest, _: Any) -> pb.CheckResponse:
        names = request.attributes.context_extensions
        if DEPLOYMENT not in names:
            return allow()  # Envoy has selected another route meanwhile, of a deployment with replicas
        key = names[APPLICATION], names[DEPLOYMENT]
        received_at = self._clock()
        timeout_key, timeout_s = _deadline(request.attributes.request.http.headers)
        late, limit_s = "Deadline exceeded.", self._request_timeout_s
        if limit_s is not None and (timeout_s is None or limit_s < timeout_s):
            timeout_s, late = limit_s, f"Request timed out after {limit_s}s."
        decision = await self._decide(key, timeout_s, late)
        if decision is not ALLOW:
            self._refused[decision.reason, decision.code] += 1
            return _refusal(decision)
        if timeout_s is None:
            return allow()
        # Subtract the time that the call has waited: the replica counts from when it receives the call.
        left_ms = math.ceil((timeout_s - (self._clock() - received_at)) * 1000)
        left = str(min(max(left_ms, 1), _MAX_TIMEOUT_MS))
        return allow([set_header(timeout_key, left if timeout_key == WEB_TIMEOUT_KEY else f"{left}m")])

    async def _decide(self, key: DeploymentKey, timeout_s: float | None, late: str) -> Decision:
        since = self._ready_since.get(key)
        if since is not None:
            await asyncio.sleep(max(0.0, since + self._settle_s - self._clock()))
            if key in self._ready_since:
                return ALLOW
        status = self._reject_status(key)
        if status is not None:
            return status
        return await self._waiting_calls.enter(
            key, limit=self._published[key].max_waiting, timeout_s=timeout_s, late=late
        )

    def _has_replica(self, key: DeploymentKey) -> bool:
        return key in self._published and bool(self._published[key].endpoints)

    def _release(self, key: DeploymentKey) -> None:
        if key in self._ready_since:
            self._waiting_calls.answer(key, ALLOW)

    def _reject_status(self, key: DeploymentKey) -> Decision | None:
        """Return the status of a call that can't wait for a deployment without replicas; None if it can."""
        application = key[0]
        if self._is_closed:
            return _CLOSED
        if not any(name == application for name, _ in self._published):
            return Decision(*no_route_status(Snapshot(0), "", application), "no_route")
        if key not in self._published or not self._published[key].max_waiting:
            details = f"No replica of application {application!r} is ready."
            return Decision(grpc.StatusCode.UNAVAILABLE, details, _NO_REPLICA)
        return None


def _deadline(headers: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the header with the deadline that the replica will count, and its seconds; None for no limit."""
    web = headers.get(WEB_TIMEOUT_KEY, "")
    # Of the metadata of a gRPC call, this name means nothing. A malformed value is refused by the replica.
    if web.isdecimal() and not is_grpc(headers.get(CONTENT_TYPE_KEY, "").encode()):
        return WEB_TIMEOUT_KEY, int(web) / 1000
    text = headers.get(TIMEOUT_KEY)
    return TIMEOUT_KEY, parse_timeout(text.encode()) if text is not None else None


def _refusal(decision: Decision) -> pb.CheckResponse:
    """Return the response that ends a call with a status, which each protocol reads from other headers."""
    headers = (
        set_header("grpc-status", str(decision.code.value[0])),
        set_header("grpc-message", encode_message(decision.details).decode()),
    )
    return deny(_HTTP_STATUS[decision.code], headers, decision.details)
