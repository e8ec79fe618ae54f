"""The ``runtime_env`` of applications of a config file, as Ray Serve gets them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdk._serve import config_deploy, import_path
from sdk._serve.config_deploy import deploy
from sdk._serve.config_file import read_config
from sdk._serve.internals import ServeSettings

OWN, OTHER = "01", "02"
# That of the program that started Ray Serve.
OTHER_FOLDER = "/other"
CONFIG = """\
applications:
  - {name: plain, import_path: "shop:app", route_prefix: null}
  - {name: given, import_path: "shop:app", route_prefix: null, runtime_env: {env_vars: {PYTHONPATH: /mine}}}
  - {name: zip, import_path: "shop:app", route_prefix: null, runtime_env: {working_dir: "https://example.com/a.zip"}}
"""


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Deploy a config in a folder, and return the ``runtime_env`` of each application."""
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere"):
        (folder / "serve.yaml").write_text(CONFIG)
        (folder / "shop.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/extra")
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: OWN))
    applied: list[Any] = []
    monkeypatch.setattr(config_deploy, "serve_settings", lambda *_: ServeSettings("Disabled", 9000, None, False, ()))
    monkeypatch.setattr(config_deploy, "apply_config", lambda _, schema: applied.append(schema))

    def deployed(path: str, started_by: str, *, has_new_code: bool = False) -> dict[str, Any]:
        controller = SimpleNamespace(_actor_id=SimpleNamespace(job_id=bytes.fromhex(started_by)))
        for module in (config_deploy, import_path):
            monkeypatch.setattr(module, "find_serve_controller", lambda: controller)
        monkeypatch.setattr(import_path, "_folders_of_serve", lambda: [OTHER_FOLDER])
        deploy(read_config(path), has_new_code=has_new_code)
        return {application.name: application.runtime_env for application in applied[-1].applications}

    return deployed


def test_workers_get_no_environment_where_ray_has_them_import_from_the_folder_of_the_config(environments: Any) -> None:
    found = environments("serve.yaml", OWN)
    assert not found["plain"]  # with one, Ray starts Python twice for each worker
    assert found["given"] == {"env_vars": {"PYTHONPATH": "/mine"}}
    assert found["zip"] == {"working_dir": "https://example.com/a.zip"}


@pytest.mark.parametrize(("path", "started_by"), [("elsewhere/serve.yaml", OWN), ("serve.yaml", OTHER)])
def test_workers_import_from_the_folder_of_the_config(
    environments: Any, tmp_path: Path, path: str, started_by: str
) -> None:
    folders = dict.fromkeys([str(tmp_path), str((tmp_path / path).parent), "/extra"])
    found = environments(path, started_by)
    assert found["plain"] == {"env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}
    assert found["given"] == {"env_vars": {"PYTHONPATH": "/mine"}}
    assert "PYTHONPATH" not in found["zip"].get("env_vars", {})


def test_new_code_is_a_new_environment(environments: Any) -> None:
    first, second = (environments("serve.yaml", OWN, has_new_code=True)["plain"]["env_vars"] for _ in range(2))
    assert list(first) == list(second) == ["SDK_CODE_VERSION"]
    assert first != second
