"""The import path of replicas: that of the program that runs the application, even if another started Ray Serve."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

import sdk
from sdk._serve import import_path, ray_connection
from sdk._serve.import_path import (
    give_import_path,
    refuse_hidden_modules,
    refuse_hidden_package,
    with_import_path,
)
from sdk.errors import ApplicationError

PATH = "/home/me/shop"
GIVEN = {"env_vars": {"PYTHONPATH": PATH}}


@pytest.mark.parametrize(
    ("own", "of_program", "given"),
    [
        (None, {}, GIVEN),
        ({}, {}, GIVEN),
        ({"pip": ["a"]}, {}, {"pip": ["a"], **GIVEN}),
        ({"env_vars": {"A": "b"}}, {}, {"env_vars": {"PYTHONPATH": PATH, "A": "b"}}),
        # Ray Serve gives the program's environment only to deployments without one.
        ({"env_vars": {"A": "b"}}, GIVEN, {"env_vars": {"PYTHONPATH": PATH, "A": "b"}}),
        (None, {"env_vars": {"A": "b"}}, {"env_vars": {"PYTHONPATH": PATH, "A": "b"}}),
        (None, GIVEN, None),
        ({"env_vars": {"PYTHONPATH": "/mine"}}, {}, None),
        ({"working_dir": "s3://code.zip"}, {}, None),
        ({"py_modules": ["s3://code.zip"]}, {}, None),
        (None, {"working_dir": "s3://code.zip"}, None),
        ({"env_vars": {"A": "b"}}, {"working_dir": "s3://code.zip"}, None),
    ],
)
def test_the_environment_of_a_deployment(own: Any, of_program: Any, given: Any) -> None:
    assert with_import_path(own, of_program, PATH) == given


def test_the_folders_are_those_of_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "program.py")])
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/lib"])
    monkeypatch.setenv("PYTHONPATH", f"/extra{os.pathsep}{tmp_path}")
    assert import_path.import_path() == os.pathsep.join([str(tmp_path), str(tmp_path / "here"), "/extra"])
    monkeypatch.setattr(sys, "path", ["", "/lib"])  # a notebook: its argv is that of the kernel
    assert import_path.import_path().split(os.pathsep)[0] == str(tmp_path / "here")


def test_workers_of_a_command_have_the_folders_of_its_pythonpath_and_no_environment_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/first{os.pathsep}{os.pathsep}/second")
    job = ray_connection.job_with_import_path()
    path = ["/lib"]
    for folder in job._py_driver_sys_path:  # as a worker of Ray does
        path.insert(0, folder)
    assert path == ["/first", "/second", "/lib"]
    assert not job.runtime_env  # with one, Ray starts Python twice for each worker


@serve.deployment
class Inner: ...


@serve.deployment
class Outer:
    def __init__(self, inner: Any) -> None: ...


@pytest.mark.parametrize(("job", "is_given"), [("01", False), ("02", True)])
def test_deployments_get_it_if_another_program_has_started_ray_serve(
    job: str, is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = SimpleNamespace(_actor_id=SimpleNamespace(job_id=bytes([1])))
    context = SimpleNamespace(get_job_id=lambda: job, runtime_env={})
    monkeypatch.setattr(import_path, "find_serve_controller", lambda: controller)
    monkeypatch.setattr(import_path, "_folders_of_serve", list)
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    application = Outer.options(ray_actor_options={"num_cpus": 0.1}).bind(Inner.bind())
    for _ in range(2):  # it may be run again
        give_import_path(application)
    options = [each.ray_actor_options for each in import_path.bound_deployments(application)]
    assert [("runtime_env" in each) for each in options] == [is_given, is_given]
    assert options[1]["num_cpus"] == 0.1
    for each in options if is_given else []:
        assert each["runtime_env"] == {"env_vars": {"PYTHONPATH": import_path.import_path()}}


@pytest.fixture
def two_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folders of this program, which has imported what is in it, and of the one that started Ray Serve."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        (folder / "pack_hid").mkdir(parents=True)
        (folder / "space_hid").mkdir()
        (folder / "lib").mkdir()
    for name in ("app_hid.py", "pack_hid/__init__.py", "pack_hid/service.py", "space_hid/part.py", "lib/other_hid.py"):
        (ours / name).write_text("ours = True\n")
    for folder in (ours, ours / "lib"):
        monkeypatch.syspath_prepend(folder)
    for name in ("app_hid", "pack_hid.service", "space_hid.part", "other_hid"):
        import_module(name)
        monkeypatch.delitem(sys.modules, name.partition(".")[0])
        monkeypatch.delitem(sys.modules, name, raising=False)
        import_module(name)
    monkeypatch.setattr(import_path, "_folders_of_serve", lambda: [str(theirs)])
    return ours, theirs


@pytest.mark.parametrize(
    ("there", "hidden", "hiding"),
    [
        ("app_hid.py", "app_hid.py", "app_hid.py"),
        ("app_hid/__init__.py", "app_hid.py", "app_hid/"),
        ("pack_hid.py", "pack_hid/__init__.py", "pack_hid.py"),
        ("pack_hid/__init__.py", "pack_hid/__init__.py", "pack_hid/"),
        ("space_hid/part.py", "space_hid/part.py", "space_hid/part.py"),
        ("other_hid.py", "lib/other_hid.py", "other_hid.py"),
        ("space_hid/another.py", None, None),
        ("lib/other_hid.py", None, None),  # it is not on their path
        ("lib.py", None, None),
        ("unknown.py", None, None),
    ],
)
def test_modules_in_whose_place_replicas_would_import_others_are_refused(
    two_programs: tuple[Path, Path], there: str, hidden: str | None, hiding: str | None
) -> None:
    ours, theirs = two_programs
    path = os.pathsep.join(map(str, (ours, ours / "lib")))
    refuse_hidden_modules(path)
    (theirs / there).parent.mkdir(exist_ok=True)
    (theirs / there).write_text("theirs = True\n")
    if hidden is None:
        refuse_hidden_modules(path)
        return
    with pytest.raises(ApplicationError) as refused:
        refuse_hidden_modules(path)
    said = str(refused.value)
    assert said.startswith(f"Replicas would import {theirs}/{hiding} in place of {ours / hidden}")
    assert said.endswith("Rename the module, or use another Ray (`sdk run --address local`).")


def test_equal_files_of_two_folders_are_not_refused(two_programs: tuple[Path, Path]) -> None:
    ours, theirs = two_programs
    shutil.copytree(ours, theirs, dirs_exist_ok=True)
    refuse_hidden_modules(str(ours))
    (theirs / "pack_hid" / "service.py").unlink()
    with pytest.raises(ApplicationError, match=f"import {theirs}/pack_hid/ in place of {ours}/pack_hid/service.py:"):
        refuse_hidden_modules(str(ours))


@pytest.mark.parametrize("hiding", ["sdk/__init__.py", "sdk.py"])
@pytest.mark.parametrize("of_script", [False, True])
def test_a_package_that_hides_ours_from_replicas_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hiding: str, of_script: bool
) -> None:
    folder = tmp_path / ("program" if of_script else "here")
    for name in ("program", "here"):
        (tmp_path / name / "sdk").mkdir(parents=True)  # without __init__.py, it hides nothing
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "program" / "serve.py")])
    monkeypatch.syspath_prepend(tmp_path / "program")
    refuse_hidden_package()
    (folder / hiding).touch()
    with pytest.raises(ApplicationError, match=f"hides the package 'sdk' .* import from {folder} first"):
        sdk.start()
