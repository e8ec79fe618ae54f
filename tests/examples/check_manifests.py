"""Check of the Kubernetes manifests against schemas: ``make manifests``, which installs what it needs.

The pods are checked, strictly, with the schemas of Kubernetes in ``kubernetes-validate``. With the path of KubeRay's
``ray.io_rayservices.yaml`` (in ``helm-chart/kuberay-operator/crds`` of https://github.com/ray-project/kuberay) the
whole manifests are checked too, and no field may be unknown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from tests.support.cluster import ROOT


def forbid_unknown_fields(schema: Any) -> None:
    """Make a schema of Kubernetes strict, and replace what only Kubernetes knows."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        forbid_unknown_fields(part)
    if not isinstance(schema, dict):
        return
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)


def read_schema(path: Path) -> dict[str, Any]:
    """Return the schema of a ``RayService`` in KubeRay's definition of it."""
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    schema: dict[str, Any] = next(each for each in versions if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    forbid_unknown_fields(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def problems(manifest: dict[str, Any], schema: dict[str, Any] | None) -> Iterator[str]:
    """Yield what is wrong in a ``RayService``."""
    if schema is not None:
        for error in Draft202012Validator(schema).iter_errors(manifest):
            yield f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
    cluster = manifest["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        try:
            kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"a pod: {error}"


def manifests(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each manifest with its name: the example's, the one of `sdk new`, and the first with the docs' TLS."""
    example = yaml.safe_load((ROOT / "examples/config/rayservice.yaml").read_text())
    yield "examples/config/rayservice.yaml", example
    subprocess.run([Path(sys.executable).parent / "sdk", "new", "shop"], cwd=folder, check=True, capture_output=True)
    yield "sdk new", yaml.safe_load((folder / "shop/rayservice.yaml").read_text())
    docs = (ROOT / "docs/operations/deploying.md").read_text()
    secret = yaml.safe_load(docs.partition("### TLS from a secret")[2].partition("```yaml\n")[2].partition("```")[0])
    cluster = example["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        pod["volumes"] = secret["volumes"]
        pod["containers"][0].update({"env": secret["env"], "volumeMounts": secret["volumeMounts"]})
    yield "docs/operations/deploying.md, TLS from a secret", example


def main(arguments: list[str]) -> int:
    """Print the problems of each manifest; returns the exit code."""
    schema = read_schema(Path(arguments[0])) if arguments else None
    has_problems = False
    with tempfile.TemporaryDirectory() as folder:
        for name, manifest in manifests(Path(folder)):
            found = list(problems(manifest, schema))
            has_problems = has_problems or bool(found)
            print("\n".join(f"{name}: {each}" for each in found) or f"{name}: ok")
    return 1 if has_problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
