"""The config file and the Kubernetes manifest fit Ray Serve's schema, and describe the same applications."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import quotes_app
import yaml
from packaging.version import Version
from pydantic import ValidationError
from quotes_pb2 import PickRequest
from quotes_sdk import QuotesSyncClient
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

import sdk.testing
from sdk._ingress.env_options import from_environment
from tests.support.readme import ROOT

HERE = ROOT / "config"


def parsed(file: Path) -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))


def built(application: ServeApplicationSchema) -> Any:
    """Return an application as Ray Serve builds it from a config file: the file's options replace the code's."""
    module, _, name = application.import_path.partition(":")
    options = {each.name: each for each in application.deployments}
    build = getattr(import_module(module), name)
    (parameter,) = build.__annotations__.keys() - {"return"}
    settings = quotes_app.Settings(**application.args)
    app = build(**{parameter: settings})
    config = options["Quotes"].user_config
    if isinstance(config, dict):
        # As if `user_config` of the file had changed for a running replica.
        return quotes_app.Quotes.options(user_config=config).bind(settings.language, settings.mark)
    return app


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    text = (HERE / "rayservice.yaml").read_text()
    return dict(yaml.safe_load(text))


def test_the_file_is_one_of_ray_serve() -> None:
    schema = parsed(HERE / "serve_config.yaml")
    assert [application.name for application in schema.applications] == ["english", "german"]
    assert schema.proxy_location == "Disabled"
    for application in schema.applications:
        assert application.route_prefix is None
        assert [deployment.name for deployment in application.deployments] == ["Quotes"]


def test_the_manifest_describes_the_same(manifest: dict[str, Any]) -> None:
    embedded = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    assert embedded == parsed(HERE / "serve_config.yaml")


def test_every_pod_of_the_manifest_serves_the_port(manifest: dict[str, Any]) -> None:
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    cluster = manifest["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    options = [from_environment({each["name"]: each["value"] for each in container["env"]}) for container in containers]
    assert options == [{"host": "0.0.0.0", "port": 9000}] * 2  # a probe and a Service reach the address of the pod only
    ports = [{each["name"]: each["containerPort"] for each in container["ports"]} for container in containers]
    # With any port given, KubeRay adds no default ones, and it finds the dashboard by the name of its port.
    assert ports[0] == {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 9000}
    assert ports[1] == {"serve": 9000}
    assert containers[1]["readinessProbe"]["grpc"] == {"port": 9000, "service": "ready"}
    assert "readinessProbe" not in containers[0]  # KubeRay deploys nothing before the head is ready
    # Older ones, and pods without a version, are probed with `wget`, which the image of `sdk new` lacks:
    # https://github.com/ray-project/kuberay/blob/v1.7.0/ray-operator/controllers/ray/common/pod.go#L721
    assert Version(cluster["rayVersion"]) >= Version("2.53")
    assert manifest["spec"]["excludeHeadPodFromServeSvc"] is True
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_what_the_file_describes_is_served() -> None:
    applications = {each.name: built(each) for each in parsed(HERE / "serve_config.yaml").applications}
    with sdk.testing.serve(applications) as server:
        client = server.client(QuotesSyncClient)
        assert client.Pick(PickRequest(), application="english").text == "Make haste slowly."
        assert client.Pick(PickRequest(), application="german").text == "Eile mit Weile.!"


def test_arguments_are_checked_before_anything_starts() -> None:
    with pytest.raises(ValidationError, match="language"):
        quotes_app.Settings.model_validate({"lang": "en"})


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd-analyze is not installed: it is in Debian's package systemd")
    unit = (HERE / "quotes.service").read_text()
    # Of this machine: the unit's own user and command do not exist here.
    unit = unit.replace("User=quotes\n", "").replace("/opt/quotes/.venv/bin/sdk", sys.executable)
    (tmp_path / "quotes.service").write_text(unit)
    command = [systemd, "verify", "--recursive-errors=no", str(tmp_path / "quotes.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
