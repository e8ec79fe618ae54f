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
from sdk._ingress.builtin.services import refusal
from sdk._ingress.scale_to_zero.waiting_calls import GOES_ON, Key, Verdict, WaitingRoom
from sdk._wire.metadata import parse_timeout
from sdk._xds.ext_authz import APPLICATION, CHECK, DEPLOYMENT, TIMEOUT_KEY, ends, goes_on
from sdk._xds.listener import header
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
Report = Callable[[Mapping[Key, int]], Awaitable[Mapping[Key, str]]]


class Gate:
    """Answers Envoy's checks.

    Args:
        report: Tells the controller how many calls wait.
        settle_s: Seconds between Envoy's acknowledgement of a replica and the first call to it.
    """

    def __init__(self, report: Report, *, settle_s: float = _SETTLE_S) -> None:
        self._report = report
        # The ingress's limit for a call; the time that it waits counts.
        self._request_timeout_s: float | None = None
        self._settle_s = settle_s
        self._changed = asyncio.Event()
        self._room = WaitingRoom(on_change=self._changed.set)
        self._serving: dict[Key, Deployment] = {}
        self._coming: dict[Key, Deployment] = {}
        # Since when Envoy has had a replica of a deployment.
        self._open: dict[Key, float] = {}

    @property
    def waiting(self) -> dict[Key, int]:
        """How many calls wait for each deployment."""
        return self._room.counts

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return what answers the checks of a gRPC server."""
        service, _, method = CHECK.lstrip("/").rpartition("/")
        check = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=pb.CheckRequest.FromString,
            response_serializer=pb.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(service, {method: check})

    def expect(self, snapshot: Snapshot) -> None:
        """Take note of a routing table that Envoy is about to get: calls wait for what will have no replica."""
        self._coming = _by_key(snapshot)
        self._request_timeout_s = snapshot.request_timeout_s
        self._open = {key: since for key, since in self._open.items() if _has_replica(self._coming, key)}

    def serve(self, snapshot: Snapshot) -> None:
        """Take note that Envoy has acknowledged a routing table: calls go on that have a replica now."""
        self._coming = self._serving = _by_key(snapshot)
        self._request_timeout_s = snapshot.request_timeout_s
        for key in self._serving:
            if _has_replica(self._serving, key):
                self._open.setdefault(key, time.monotonic())
        for key in self._room.counts:
            if key in self._open:
                asyncio.get_running_loop().call_later(self._settle_s, self._release, key)
            elif (refusal := self._refusal(key)) is not None:
                self._room.answer(key, refusal)

    async def keep_reporting(self) -> None:
        """Tell the controller who waits, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            counts = self._room.counts
            try:
                troubles = await self._report(counts)
            except Exception as error:  # the controller is being restarted; the calls go on waiting
                logger.warning("the ingress controller can't be told of waiting calls (%s)", type(error).__name__)
                troubles = {}
            for key, reason in troubles.items():
                details = f"No replica of application {key[0]!r} can be started: {reason}"
                self._room.answer(key, Verdict(grpc.StatusCode.UNAVAILABLE, details))
            await asyncio.sleep(_REPORT_GAP_S)
            if self._room.counts:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _REPORT_S)
                self._changed.set()

    # -- inside -------------------------------------------------------------------------------

    async def _check(self, request: pb.CheckRequest, _: Any) -> pb.CheckResponse:
        names = request.attributes.context_extensions
        if DEPLOYMENT not in names:
            return goes_on()  # its route turned out to lead to a deployment that has replicas
        key = names[APPLICATION], names[DEPLOYMENT]
        began = time.monotonic()
        text = request.attributes.request.http.headers.get(TIMEOUT_KEY)
        timeout_s = parse_timeout(text.encode()) if text is not None else None
        late, limit_s = "Deadline exceeded.", self._request_timeout_s
        if limit_s is not None and (timeout_s is None or limit_s < timeout_s):
            timeout_s, late = limit_s, f"Request timed out after {limit_s}s."
        verdict = await self._verdict(key, timeout_s, late)
        if verdict is not GOES_ON:
            return ends([header("grpc-status", str(verdict.code.value[0]))], verdict.details)
        if timeout_s is None:
            return goes_on()
        # What is left of it: the replica counts from when it sees the call.
        left_ms = math.ceil((timeout_s - (time.monotonic() - began)) * 1000)
        return goes_on([header(TIMEOUT_KEY, f"{min(max(left_ms, 1), _LONGEST_TIMEOUT_MS)}m")])

    async def _verdict(self, key: Key, timeout_s: float | None, late: str) -> Verdict:
        since = self._open.get(key)
        if since is not None:
            await asyncio.sleep(max(0.0, since + self._settle_s - time.monotonic()))
            if key in self._open:
                return GOES_ON
        refusal = self._refusal(key)
        if refusal is not None:
            return refusal
        return await self._room.enter(key, limit=self._coming[key].max_waiting, timeout_s=timeout_s, late=late)

    def _release(self, key: Key) -> None:
        if key in self._open:
            self._room.answer(key, GOES_ON)

    def _refusal(self, key: Key) -> Verdict | None:
        """Return how a call ends that can't wait for a deployment without replicas."""
        application = key[0]
        if not any(name == application for name, _ in self._coming):
            return Verdict(*refusal(Snapshot(0), "", application))
        if key not in self._coming or not self._coming[key].max_waiting:
            return Verdict(grpc.StatusCode.UNAVAILABLE, f"No replica of application {application!r} is ready.")
        return None


def _by_key(snapshot: Snapshot) -> dict[Key, Deployment]:
    return {
        (application.name, deployment.name): deployment
        for application in snapshot.applications
        for deployment in application.deployments
    }


def _has_replica(deployments: Mapping[Key, Deployment], key: Key) -> bool:
    return key in deployments and bool(deployments[key].endpoints)
