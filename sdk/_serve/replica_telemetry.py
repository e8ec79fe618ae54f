"""OpenTelemetry in a replica: the provider of its spans, and its calls' spans.

A provider that Ray (``tracing_config``, ``--tracing-startup-hook``) or the program has set makes the spans. Without
one, environment variables may ask for one (``sdk/_tracing/environment.py``).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdk._serve.internals import trace_batches
from sdk._tracing import current
from sdk._tracing.environment import Telemetry

if TYPE_CHECKING:
    from sdk._wire.server import WireServer

logger = logging.getLogger("ray.serve")

# Seconds that the last export may take.
_FLUSH_S = 5.0
#: Variable that adds an event for each message to the spans.
MESSAGE_EVENTS = "SDK_OTEL_MESSAGE_EVENTS"


class ReplicaTelemetry:
    """OpenTelemetry in one replica.

    Args:
        server: The replica's wire server.
        context: Ray Serve's context of the replica.
        interceptors: The deployment's interceptors.
    """

    def __init__(self, server: WireServer, context: Any, interceptors: Sequence[Any]) -> None:
        self._server = server
        self._context = context
        self._telemetry = Telemetry()
        self._has_own_spans = any(makes_server_spans(each) for each in interceptors)

    def start(self) -> None:
        """Set up what environment variables ask for. Called after the user's constructor, which may set a provider."""
        replica = self._context.replica_id
        self._telemetry.set_up(os.environ, self._context.app_name, replica.unique_id)
        self.follow_provider()

    def follow_provider(self) -> None:
        """Make spans from now on, if somebody has set a provider."""
        tracing = current.refresh()
        if tracing is None or self._has_own_spans:
            self._server.host.spans = None
            return
        spans = self._server.host.spans
        if spans is None or spans.tracing is not tracing:
            from sdk._wire.traced_call import ServerSpans

            trace_batches()
            self._server.host.spans = ServerSpans(
                tracing,
                {
                    "ray.serve.application": self._context.app_name,
                    "ray.serve.deployment": self._context.deployment,
                },
                events=wants_events(),
            )

    async def stop(self) -> None:
        """Export what is left."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self._telemetry.shut_down), _FLUSH_S)
        except TimeoutError:
            logger.warning("the last spans and metrics of this replica were not exported within %g s", _FLUSH_S)


def makes_server_spans(interceptor: Any) -> bool:
    """Return True for an interceptor of OpenTelemetry's own instrumentation of grpc."""
    return any(each.__module__.startswith("opentelemetry.instrumentation.grpc") for each in type(interceptor).__mro__)


def wants_events() -> bool:
    """Return True if the environment asks for an event for each message."""
    return os.environ.get(MESSAGE_EVENTS, "").strip().lower() in ("1", "true", "yes", "on")
