from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Public import paths, which generated code and users name. They must not change.
PUBLIC = {
    "sdk.access": ("Access", "ApiKey", "Certificate", "JwtIssuer", "Limit", "Rule", "Token", "access_from"),
    "sdk.client": (
        "AsyncClient",
        "AsyncStreamStream",
        "AsyncStreamUnary",
        "AsyncUnaryStream",
        "AsyncUnaryUnary",
        "CallOptions",
        "Keepalive",
        "Metadata",
        "RetryPolicy",
        "SyncClient",
        "SyncStreamStream",
        "SyncStreamUnary",
        "SyncUnaryStream",
        "SyncUnaryUnary",
    ),
    "sdk.context": ("ServicerContext", "current_context"),
    "sdk.deployment": (
        "AutoscalingConfig",
        "BoundAs",
        "BoundDeployment",
        "DeploymentOptions",
        "ServicerBase",
        "grpc_deployment",
    ),
    "sdk.errors": ("RpcError", "SdkError"),
    "sdk.inference": (
        "Arrays",
        "GRPCInferenceServiceClient",
        "GRPCInferenceServiceHandle",
        "GRPCInferenceServiceSyncClient",
        "InferenceRepository",
        "InferenceService",
        "Model",
        "Tensor",
        "infer_request",
        "response_arrays",
    ),
    "sdk.inference.messages": ("ModelInferRequest", "ModelInferResponse", "ModelMetadataRequest", "ServerLiveRequest"),
    "sdk.handles": (
        "HandleCall",
        "HandleOptions",
        "HandleStream",
        "HandleStreamCall",
        "HandleStreamStream",
        "HandleStreamUnary",
        "HandleUnary",
        "ServiceHandle",
    ),
    "sdk.options": ("GrpcOptions",),
    "sdk.pytest_plugin": ("grpc_serve",),
    "sdk.service": ("Cardinality", "Method", "MethodBinding", "RequestStream", "ResponseStream", "Service", "Shim"),
    "sdk.shared_model": ("SharedModel",),
    "sdk.testing": ("Fault", "Server", "serve"),
}
PRIVATE = re.compile(r"\bsdk\.(?:\w+\.)*_[a-z]\w*")


@pytest.mark.parametrize("module", PUBLIC)
def test_public_module_has_its_names(module: str) -> None:
    found = vars(__import__(module, fromlist=["*"]))
    assert [name for name in PUBLIC[module] if name not in found] == []


def test_no_other_module_is_public() -> None:
    public = {path.stem for path in (ROOT / "sdk").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for name in public if not name.startswith("_")} == {
        *(module.split(".")[1] for module in PUBLIC),
        "cli",
    }


@pytest.mark.parametrize("folder", ["examples", "templates", "tests/codegen/cases"])
def test_user_code_imports_public_modules_only(folder: str) -> None:
    private = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".pyi", ".jinja", ".txt", ".toml"}
        for found in PRIVATE.findall(path.read_text())
    ]
    assert private == []


def test_private_names_of_ray_serve_are_used_in_two_files() -> None:
    named = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sdk").rglob("*.py")
        if re.search(r"\bray\.serve\._private\b", path.read_text())
    }
    assert named == {"sdk/_serve/internals.py", "sdk/testing/_serve_patches.py"}


def test_no_two_public_classes_have_one_name() -> None:
    sources = [path for folder in ("sdk", "codegen") for path in (ROOT / folder).rglob("*.py")]
    names = Counter(
        name for path in sources for name in re.findall(r"^class ([A-Z]\w+)", path.read_text(), re.MULTILINE)
    )
    assert [name for name, count in names.items() if count > 1] == []


def imported_at_once(module: str) -> set[str]:
    """Return the module and those of the SDK that its import runs: not what functions import, or types only."""
    found: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        file = ROOT / f"{name.replace('.', '/')}.py"
        path = file if file.exists() else file.with_suffix("") / "__init__.py"
        if name in found or not name.startswith("sdk") or not path.exists():
            continue
        found.add(name)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                left += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def test_a_replica_imports_nothing_of_envoy_and_the_ingress_that_it_does_not_need() -> None:
    # 3 MB for each replica. Its class imports the backend, and Ray Serve its own class.
    modules = imported_at_once("sdk._serve.backend") | imported_at_once("sdk._serve.replica")
    assert {name for name in modules if name.startswith("sdk._xds.")} == {"sdk._xds.endpoints", "sdk._xds.snapshot"}
    assert not modules & {"sdk._gen.envoy_pb2", "sdk._ingress.controller", "sdk._ingress.proxy", "sdk._serve.api"}
    assert {"sdk._gen.envoy_pb2", "sdk._ingress.proxy"} < imported_at_once("sdk._ingress.proxy")
    # Nor does a program that starts the ingress import the proxy.
    assert "sdk._ingress.proxy" not in imported_at_once("sdk._serve.api")
