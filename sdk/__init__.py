"""Typed gRPC services on Ray Serve, behind Envoy.

Each name is imported at its first use (PEP 562), so that a client-only program that imports generated code loads
neither Ray nor the serving side.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdk import testing
    from sdk._serving import delete, handle, run, shutdown, start, status
    from sdk._status import error_details
    from sdk.client import Keepalive, RetryPolicy
    from sdk.context import current_context
    from sdk.deployment import grpc_deployment
    from sdk.errors import (
        ApplicationError,
        BreakingChangeError,
        ClusterError,
        DefinitionError,
        IngressError,
        InvalidResponseError,
        MissingExtraError,
        OptionsError,
        Problem,
        RpcError,
        RuleError,
        SdkError,
        ServerError,
        StaleCodeError,
    )
    from sdk.options import GrpcOptions
    from sdk.shared_model import SharedModel

__version__ = "0.1.0"

_MODULES = {
    "ApplicationError": "sdk.errors",
    "BreakingChangeError": "sdk.errors",
    "ClusterError": "sdk.errors",
    "DefinitionError": "sdk.errors",
    "GrpcOptions": "sdk.options",
    "IngressError": "sdk.errors",
    "InvalidResponseError": "sdk.errors",
    "Keepalive": "sdk.client",
    "MissingExtraError": "sdk.errors",
    "OptionsError": "sdk.errors",
    "Problem": "sdk.errors",
    "RetryPolicy": "sdk.client",
    "RpcError": "sdk.errors",
    "RuleError": "sdk.errors",
    "SdkError": "sdk.errors",
    "ServerError": "sdk.errors",
    "SharedModel": "sdk.shared_model",
    "StaleCodeError": "sdk.errors",
    "current_context": "sdk.context",
    "delete": "sdk._serving",
    "error_details": "sdk._status",
    "grpc_deployment": "sdk.deployment",
    "handle": "sdk._serving",
    "run": "sdk._serving",
    "shutdown": "sdk._serving",
    "start": "sdk._serving",
    "status": "sdk._serving",
    "testing": "sdk.testing",
}

__all__ = [
    "ApplicationError",
    "BreakingChangeError",
    "ClusterError",
    "DefinitionError",
    "GrpcOptions",
    "IngressError",
    "InvalidResponseError",
    "Keepalive",
    "MissingExtraError",
    "OptionsError",
    "Problem",
    "RetryPolicy",
    "RpcError",
    "RuleError",
    "SdkError",
    "ServerError",
    "SharedModel",
    "StaleCodeError",
    "__version__",
    "current_context",
    "delete",
    "error_details",
    "grpc_deployment",
    "handle",
    "run",
    "shutdown",
    "start",
    "status",
    "testing",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'sdk' has no attribute {name!r}")
    found = importlib.import_module(module)
    value = found if module == f"{__name__}.{name}" else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
