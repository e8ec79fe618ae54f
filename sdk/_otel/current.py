"""The flag that says whether this process makes spans. It imports no part of OpenTelemetry before somebody else does.

A process makes spans once it has a tracer provider: one that a program, Ray or :mod:`sdk._otel.environment` has set
(https://opentelemetry.io/docs/specs/otel/trace/api/#tracerprovider).
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from sdk._otel.spans import Tracing

logger = logging.getLogger("sdk.tracing")

#: Makes the spans; None while this process makes none. As :func:`refresh` has found it last.
tracing: Tracing | None = None
# A provider that makes no spans, because OTEL_PROPAGATORS is wrong.
_refused: TracerProvider | None = None


def refresh() -> Tracing | None:
    """Look again for the process's tracer provider; return and keep in :data:`tracing` what makes its spans."""
    global tracing, _refused
    api = sys.modules.get("opentelemetry.trace")
    # Absent while another thread still imports it.
    if api is None or not hasattr(api, "get_tracer_provider"):
        return tracing
    provider = api.get_tracer_provider()
    if provider is _refused or isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        tracing = None
    elif tracing is None or tracing.provider is not provider:
        try:
            from sdk._otel.spans import Tracing
        except ValueError as error:  # of OpenTelemetry, which reads OTEL_PROPAGATORS when it is imported
            logger.error("calls have no spans: OTEL_PROPAGATORS: %s", error)
            tracing, _refused = None, provider
        else:
            found = Tracing(provider)
            tracing = found if found.is_enabled else None
    return tracing
