"""Typed gRPC services on Ray Serve, behind Envoy.

Names are imported when they are first used: a client-only program that imports generated code loads neither Ray nor
the serving side.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdk import testing
    from sdk.context import current_context
    from sdk.deployment import grpc_deployment
    from sdk.errors import (
        ApplicationError,
        ClusterError,
        DefinitionError,
        IngressError,
        OptionsError,
        Problem,
        RpcError,
        SdkError,
        StaleCodeError,
    )
    from sdk.ingress.options import GrpcOptions
    from sdk.serve.run import delete, handle, run, shutdown, start, status

__version__ = "0.1.0"

_MODULES = {
    "ApplicationError": "sdk.errors",
    "ClusterError": "sdk.errors",
    "DefinitionError": "sdk.errors",
    "GrpcOptions": "sdk.ingress.options",
    "IngressError": "sdk.errors",
    "OptionsError": "sdk.errors",
    "Problem": "sdk.errors",
    "RpcError": "sdk.errors",
    "SdkError": "sdk.errors",
    "StaleCodeError": "sdk.errors",
    "current_context": "sdk.context",
    "delete": "sdk.serve.run",
    "grpc_deployment": "sdk.deployment",
    "handle": "sdk.serve.run",
    "run": "sdk.serve.run",
    "shutdown": "sdk.serve.run",
    "start": "sdk.serve.run",
    "status": "sdk.serve.run",
    "testing": "sdk.testing",
}

__all__ = [
    "ApplicationError",
    "ClusterError",
    "DefinitionError",
    "GrpcOptions",
    "IngressError",
    "OptionsError",
    "Problem",
    "RpcError",
    "SdkError",
    "StaleCodeError",
    "__version__",
    "current_context",
    "delete",
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
