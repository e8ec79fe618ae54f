"""Base classes of the generated handles: typed calls from one deployment to another."""

from sdk.handles._base import (
    HandleCall,
    HandleOptions,
    HandleStream,
    HandleStreamCall,
    HandleUnary,
    ServiceHandle,
)

__all__ = ["HandleCall", "HandleOptions", "HandleStream", "HandleStreamCall", "HandleUnary", "ServiceHandle"]
