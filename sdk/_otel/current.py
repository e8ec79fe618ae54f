"""The flag that says whether this process makes spans. It imports no part of OpenTelemetry before somebody else does.

A process makes spans once it has a tracer provider: one that a program, Ray or :mod:`sdk._otel.environment` has set
(https://opentelemetry.io/docs/specs/otel/trace/api/#tracerprovider).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk._otel.spans import Tracing

#: Makes the spans; None while this process makes none. As :func:`refresh` has found it last.
tracing: Tracing | None = None


def refresh() -> Tracing | None:
    """Look again for the process's tracer provider; return and keep in :data:`tracing` what makes its spans."""
    global tracing
    api = sys.modules.get("opentelemetry.trace")
    # Absent while another thread still imports it.
    if api is None or not hasattr(api, "get_tracer_provider"):
        return tracing
    provider = api.get_tracer_provider()
    if isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        tracing = None
    elif tracing is None or tracing.provider is not provider:
        from sdk._otel.spans import Tracing

        found = Tracing(provider)
        tracing = found if found.is_enabled else None
    return tracing
