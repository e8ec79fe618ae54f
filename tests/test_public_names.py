from __future__ import annotations

import subprocess
import sys

import pytest

import sdk

NAMES = [
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
HEAVY = ("ray", "grpc_tools", "jinja2", "rich")


def test_public_names() -> None:
    assert sdk.__all__ == NAMES
    assert sorted(sdk.__all__) == sdk.__all__
    assert dir(sdk) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_name_can_be_imported(name: str) -> None:
    assert getattr(sdk, name) is not None


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'sdk' has no attribute 'deploy'"):
        _ = sdk.deploy


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import sdk", (*HEAVY, "grpc", "google.protobuf")),
        ("from sdk import SdkError, RpcError", (*HEAVY, "grpc", "google.protobuf")),
        ("import sdk._contract.definition", (*HEAVY, "grpc")),
        ("from sdk import grpc_deployment", (*HEAVY, "grpc")),
        # grpc imports the package grpc_tools where it is installed. Only the compiler in it is heavy.
        ("import sdk.client", ("ray", "grpc_tools.protoc", "grpc_tools._protoc_compiler", "jinja2", "rich")),
        ("import sdk.cli.main", (*HEAVY, "grpc", "google.protobuf")),
    ],
)
def test_import_is_cheap(statement: str, heavy: tuple[str, ...]) -> None:
    program = f"import sys; {statement}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
