"""Files that ``sdk run --reload`` watches."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from codegen.file_versions import changed_files
from sdk.cli.run.watched_files import WatchedFiles


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("app.py", "pkg/helper.py", "protos/shop.proto", "serve.yaml", "data.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    return tmp_path


def seen(watched: WatchedFiles, here: Path) -> list[str]:
    return sorted(str(path.relative_to(here.resolve())) for path in watched.versions())


def test_python_protos_and_named_files_are_watched(here: Path) -> None:
    assert seen(WatchedFiles([here], [here / "serve.yaml"]), here) == [
        "app.py",
        "pkg/helper.py",
        "protos/shop.proto",
        "serve.yaml",
    ]


def test_files_of_other_projects_are_not_watched(here: Path) -> None:
    before = seen(WatchedFiles([here], []), here)
    for name in (".git/x.py", "node_modules/x.py", "pkg/__pycache__/x.py", "env/lib/x.py", "env/pyvenv.cfg"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    assert seen(WatchedFiles([here], []), here) == before


def test_a_folder_within_another_is_watched_once(here: Path) -> None:
    watched = WatchedFiles([here / "pkg", here, here / "gone"], [])
    assert watched.folders == [here.resolve()]


@pytest.mark.parametrize("how", ["written", "replaced", "added", "removed", "renamed"])
def test_each_kind_of_change_is_noticed(here: Path, how: str) -> None:
    watched = WatchedFiles([here], [])
    before, app, other = watched.versions(), here / "app.py", here / "other.py"
    over, changed = threading.Event(), threading.Event()
    watching = threading.Thread(target=watched.watch, args=(over, changed.set))
    watching.start()
    try:
        assert changed.wait(30)  # the watcher has begun
        if how == "written":
            app.write_text("after!")
        elif how == "replaced":
            other.with_suffix(".tmp").write_text("before")
            os.replace(other.with_suffix(".tmp"), app)
        elif how == "added":
            other.write_text("new")
        elif how == "removed":
            app.unlink()
        else:
            app.rename(other)
        changed.clear()
        assert changed.wait(30)
    finally:
        over.set()
        watching.join()
    expected = [app, other] if how == "renamed" else [other] if how == "added" else [app]
    assert changed_files(before, watched.versions()) == expected


def test_nothing_changed() -> None:
    versions = {Path("a.py"): (1, 2, 3)}
    assert changed_files(versions, dict(versions)) == []
