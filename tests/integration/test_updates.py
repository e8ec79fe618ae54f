"""Checks that need a cluster: against the running version, and of the generated code on its workers."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
import user_defined_protos_sdk
from user_defined_protos_pb2 import ImageData
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub, UserDefinedServiceStub

import sdk
from tests.integration import apps, store_apps, updated_app
from tests.integration.clients import FOO, error_of, metadata_for

METADATA = metadata_for("updated")
GONE = "userdefinedprotos.UserDefinedService"


@pytest.fixture(autouse=True)
def app(deploy: Any) -> None:
    if not any(application.name == "updated" for application in sdk.status().applications):
        deploy(apps.Guide.bind("v1"), "updated")


def test_a_rejected_update_changes_nothing(channel: grpc.Channel) -> None:
    with pytest.raises(sdk.BreakingChangeError) as raised:
        sdk.run(updated_app.app, name="updated")
    (change,) = raised.value.changes
    assert (change.rule, change.path) == ("service-removed", GONE)
    assert UserDefinedServiceStub(channel).__call__(FOO, metadata=METADATA).greeting.startswith("v1")


def test_a_rejected_sdk_run_leaves_the_running_version(channel: grpc.Channel) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "sdk", "run", "tests.integration.updated_app:app", "--name", "updated"],
        cwd=Path(apps.__file__).parent,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    assert "error: Application 'updated' was not updated: 1 change would break clients" in done.stderr
    assert f"  - {GONE}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert UserDefinedServiceStub(channel).__call__(FOO, metadata=METADATA).greeting.startswith("v1")


def test_sdk_check_against_the_running_version(ingress: Any) -> None:
    from sdk.cli.check.against import compare_against

    same = compare_against([user_defined_protos_sdk.USER_DEFINED_SERVICE], f"{ingress.address}/updated", strict=True)
    assert (same.services, same.changes) == ((GONE,), ())
    other = [user_defined_protos_sdk.IMAGE_CLASSIFICATION_SERVICE]
    (change,) = compare_against(other, f"{ingress.address}/updated", strict=True).changes
    assert (change.rule, change.path) == ("service-removed", GONE)
    with pytest.raises(sdk.OptionsError, match=r"/nothing: application 'nothing' has no services$"):
        compare_against(other, f"{ingress.address}/nothing", strict=True)


def test_an_allowed_update_is_made(channel: grpc.Channel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sdk.serve"):
        sdk.run(updated_app.app, name="updated", allow_breaking=True)
    assert f"error: {GONE}: the service is still in the proto, but no class serves it" in caplog.text
    stub = ImageClassificationServiceStub(channel)
    assert stub.Predict(ImageData(url="cat"), metadata=METADATA, timeout=30).classes == ["cat"]
    error = error_of(UserDefinedServiceStub(channel).__call__, FOO, metadata=METADATA, timeout=30)
    assert error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(sdk.BreakingChangeError) as raised:  # the services of the previous version no longer count
        sdk.run(store_apps.Clerk.bind(), name="updated")
    assert [change.path for change in raised.value.changes] == ["userdefinedprotos.ImageClassificationService"]


def test_stale_code_of_a_worker_is_reported_at_deployment_and_by_the_ingress(
    deploy: Any, channel: grpc.Channel, tmp_path: Path
) -> None:
    for file in Path(user_defined_protos_sdk.__file__).parent.glob("user_defined_protos*"):
        shutil.copy(file, tmp_path)
    code = tmp_path / "user_defined_protos_sdk.py"
    code.write_text(code.read_text().replace('proto_hash="', 'proto_hash="0'))
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    actor = {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    with pytest.raises(sdk.ClusterError) as raised:
        deploy(updated_app.Plain.options(max_constructor_retry_count=1, ray_actor_options=actor).bind(), "stale")
    fingerprint = user_defined_protos_sdk.USER_DEFINED_SERVICE.proto_hash
    assert str(raised.value).startswith(
        "Application 'stale' failed to start: deployment Plain: sdk.errors.StaleCodeError: The generated code of"
        f" service {GONE} is stale: its _sdk module was generated from another version of user_defined_protos.proto"
        f" (fingerprint 0{fingerprint[:11]}) than the loaded _pb2 module ({fingerprint[:12]}). Regenerate both: run"
        " `sdk codegen` on the folder that holds user_defined_protos.proto. (sdk/service.py:"
    )
    error = error_of(channel.unary_unary(f"/{GONE}/__call__"), b"", metadata=metadata_for("stale"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "Application 'stale' failed to deploy."
