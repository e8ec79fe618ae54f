"""Protos of another commit, ``git:REF:PATH``, in a temporary folder.

REF and PATH are those of https://git-scm.com/docs/gitrevisions: PATH begins at the top of the repository, or with
``./`` at the working directory.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sdk.errors import OptionsError

_FORM = re.compile(r"git:(?P<ref>[^:]+):(?P<path>.+)")


class GitVersion(NamedTuple):
    """Protos of another commit.

    Attributes:
        protos: The file or folder, extracted.
        includes: The folders for imports that the commit has, extracted.
        folder: The temporary folder that holds both.
    """

    protos: Path
    includes: tuple[Path, ...]
    folder: Path


def is_git_version(other: str) -> bool:
    """Return whether a value of ``--against`` names a commit.

    Example:
        >>> is_git_version("git:main:protos"), is_git_version("localhost:9000")
        (True, False)
    """
    return other.startswith("git:")


@contextlib.contextmanager
def git_version(other: str, includes: Sequence[Path]) -> Iterator[GitVersion]:
    """Extract the protos of a commit; they are removed at the end.

    Args:
        other: ``"git:REF:PATH"``.
        includes: Folders for imports; those in the repository are extracted, too.

    Raises:
        OptionsError: The form is wrong, there is no repository, or the commit has no such path.
    """
    match = _FORM.fullmatch(other)
    if match is None:
        raise OptionsError(f"--against {other}: write git:REF:PATH, such as git:main:protos")
    top = Path(_git(other, "rev-parse", "--show-toplevel").decode().strip())
    ref = match["ref"]
    commit = _git(other, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", missing=ref)
    path = match["path"].rstrip("/") or "."
    if path.startswith(("./", "../")) or path == ".":
        path = _below(Path.cwd() / path, top) or path
    paths = {path: None} | {found: None for each in includes if (found := _below(Path.cwd() / each, top)) is not None}
    with tempfile.TemporaryDirectory(prefix="sdk-check-") as name:
        folder = Path(name)
        for each in paths:
            archive = _archive(top, commit.decode().strip(), each)
            if archive is None and each == path:
                raise OptionsError(f"--against {other}: {ref} has no {path}")
            if archive is not None:
                with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                    files.extractall(folder, filter="data")
        yield GitVersion(
            folder / path, tuple(folder / each for each in paths if each != path and (folder / each).is_dir()), folder
        )


def _archive(top: Path, commit: str, path: str) -> bytes | None:
    """Return a path of a commit as a tar archive, or None if the commit lacks it."""
    command = ["git", "-C", str(top), "archive", "--format=tar", commit, "--", path]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _git(other: str, *arguments: str, missing: str = "") -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise OptionsError(f"--against {other}: git is not installed") from None
    if done.returncode:
        if missing:
            raise OptionsError(
                f"--against {other}: git knows no {missing}; fetch it (actions/checkout: fetch-depth: 0)"
            )
        raise OptionsError(f"--against {other}: the working directory is not in a git repository")
    return done.stdout


def _below(path: Path, top: Path) -> str | None:
    """Return a path from the top of the repository, or None if it is not in there."""
    resolved, root = path.resolve(), top.resolve()
    return str(PurePosixPath(resolved.relative_to(root))) if resolved.is_relative_to(root) else None
