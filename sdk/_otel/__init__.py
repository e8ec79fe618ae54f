"""Spans and metrics for OpenTelemetry, by its stable conventions for RPC.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. Only ``current`` and ``conventions`` are imported where nobody
uses OpenTelemetry; the others import it.
"""
