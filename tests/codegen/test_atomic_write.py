"""Atomic changes of many files."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.atomic_write import locked, replace_files

OLD = {"a.py": b"old a", "sub/b.py": b"old b", "gone/c.py": b"old c", "mine.py": b"mine"}
NEW = {"a.py": b"new a", "sub/b.py": b"new b", "new/deep/d.py": b"new d", "mine.py": b"mine"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, data in OLD.items():
        (tmp_path / "gen" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "gen" / path).write_bytes(data)
    return tmp_path / "gen"


def change(folder: Path, on_written: Callable[[], None] = lambda: None) -> None:
    with locked(folder):
        new = {path: NEW[path] for path in ("a.py", "new/deep/d.py", "sub/b.py")}
        replace_files(folder, new, ["gone/c.py"], on_written)


def test_everything_changes_and_nothing_else_is_left(folder: Path) -> None:
    steps: list[int] = []
    change(folder, lambda: steps.append(1))
    assert content(folder) == NEW
    assert sorted(path.name for path in folder.iterdir()) == ["a.py", "mine.py", "new", "sub"]
    assert len(steps) == 3


# Every call by which files are put in place or removed, the first and a later one of each.
CALLS = [
    ("os.replace", 1),
    ("os.replace", 3),
    ("os.link", 2),
    ("pathlib.Path.unlink", 1),
    ("pathlib.Path.write_bytes", 2),
]


@pytest.mark.parametrize(("call", "times"), CALLS)
@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
def test_an_error_midway_is_rolled_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, times: int, error: BaseException
) -> None:
    left = [times]

    def fails(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise error
        return real(*arguments, **options)

    owner, _, name = call.rpartition(".")
    target = os if owner == "os" else Path
    real = getattr(target, name)
    monkeypatch.setattr(target, name, fails)
    # On a file system without links, the file is copied.
    if call == "os.link" and isinstance(error, OSError):
        change(folder)
        assert content(folder) == NEW
    else:
        with pytest.raises(type(error)):
            change(folder)
        assert content(folder) == OLD
        assert sorted(path.name for path in folder.iterdir()) == ["a.py", "gone", "mine.py", "sub"]
    assert left[0] <= 0


KILLED = """
import os, pathlib, signal, sys
from codegen import atomic_write
call, times = sys.argv[2], int(sys.argv[3])
owner = os if call.startswith("os.") else pathlib.Path
name = call.rpartition(".")[2]
real, left = getattr(owner, name), [times]
def killed(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(owner, name, killed)
folder = pathlib.Path(sys.argv[1])
with atomic_write.locked(folder):
    new = {"a.py": b"new a", "new/deep/d.py": b"new d", "sub/b.py": b"new b"}
    atomic_write.replace_files(folder, new, ["gone/c.py"], int)
"""


@pytest.mark.parametrize(("call", "times"), [*CALLS, ("os.replace", 2), ("pathlib.Path.unlink", 2), ("os.rmdir", 1)])
def test_after_a_killed_process_all_files_are_new_or_none(folder: Path, call: str, times: int) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), call, str(times)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with locked(folder):
        # The removal of the journal commits the change.
        committed = call == "os.rmdir" or (call, times) == ("pathlib.Path.unlink", 3)
        assert content(folder) == (NEW if committed else OLD)
        assert not list(folder.glob(".sdk-codegen-*"))
    change(folder)
    assert content(folder) == NEW


def test_a_new_folder_without_files_is_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no"), locked(tmp_path / "a" / "b"):
        raise RuntimeError("no")
    assert not list(tmp_path.iterdir())


def test_one_process_at_a_time(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    with locked(folder), pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
