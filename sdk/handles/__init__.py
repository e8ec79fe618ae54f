"""Base classes of the generated handles: typed calls from one deployment to another."""

from sdk.handles._base import (
    HandleOptions,
    HandleStream,
    HandleStreamStream,
    HandleStreamUnary,
    HandleUnary,
    ServiceHandle,
)
from sdk.handles._calls import HandleCall, HandleStreamCall

__all__ = [
    "HandleCall",
    "HandleOptions",
    "HandleStream",
    "HandleStreamCall",
    "HandleStreamStream",
    "HandleStreamUnary",
    "HandleUnary",
    "ServiceHandle",
]
