"""The test session's one Ray cluster: what its replicas can import, and where its ingress listens."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from codegen.sync import Options, update
from tests.support.small_ray import PYTHON_START

#: The repository: the tests are a package of it.
ROOT = Path(__file__).parents[2]
#: Folders that replicas import from. Rooms add theirs when they are collected, which is before the cluster starts.
#: Python imports `sitecustomize` of the first one when it starts.
IMPORTED_BY_REPLICAS: list[Path] = [PYTHON_START, ROOT]
# Programs of tests get our path as theirs, and what they start has it from them.
sys.path.insert(0, str(PYTHON_START))


@dataclass(frozen=True)
class Ingress:
    address: str
    port: int


def share_with_replicas(*folders: Path) -> None:
    """Let this process and the replicas import from these folders."""
    for folder in folders:
        IMPORTED_BY_REPLICAS.append(folder)
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def set_import_path() -> None:
    """Let processes that are started from now on import from these folders too."""
    before = os.environ.get("PYTHONPATH")
    # An empty part would be the working directory.
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, IMPORTED_BY_REPLICAS), *([before] if before else [])])


@contextlib.contextmanager
def first_alone(name: str) -> Iterator[None]:
    """Let the first process of a run of pytest fill a cache in the block; the others wait, and then find it filled.

    Args:
        name: The cache, or a part of it.
    """
    with open(Path(os.environ[_GENERATED], f"{name.replace('/', '-')}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_size:
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield
        else:
            yield
            lock.write("filled")


@cache
def generate(protos: Path, *proto_path: Path) -> Path:
    """Generate the code of the tests' own protos; test modules import it when they are collected.

    Each folder of protos is generated once per run of pytest: its processes share the output.

    Args:
        protos: The folder.
        proto_path: Folders to look for imported protos in.
    """
    name = "-".join(protos.relative_to(ROOT).parts)
    out = Path(os.environ[_GENERATED], name)
    with first_alone(name):
        if not out.exists():
            unfinished = out.with_suffix(".unfinished")
            update(Options((protos,), unfinished, proto_path))
            unfinished.rename(out)
    return out


def _make_folder_for_generated_code() -> None:
    """Make the folder in the first process; those that it starts find its path in their environment."""
    if _GENERATED not in os.environ:
        os.environ[_GENERATED] = tempfile.mkdtemp(prefix="sdk-test-protos-")
        atexit.register(_remove_folder_for_generated_code, os.getpid())


def _remove_folder_for_generated_code(owner: int) -> None:
    if os.getpid() == owner:  # and not a fork
        shutil.rmtree(os.environ[_GENERATED])


_GENERATED = "SDK_TEST_GENERATED"
_make_folder_for_generated_code()
