"""`sdk check --against git:REF:PATH`, and the table of what it finds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def repository(project: Path) -> Path:
    """The project with an older version of its proto on the branch ``main``, in ``protos`` with an import."""
    text = (project / "shop.proto").read_text()
    (project / "protos").mkdir()
    (project / "third").mkdir()
    (project / "third" / "kind.proto").write_text('syntax = "proto3"; package kind; message Kind { string a = 1; }')
    old = text.replace("string item = 1;", "int32 item = 1; kind.Kind kind = 2;")
    (project / "protos" / "shop.proto").write_text(old.replace("package shop;", 'package shop;\nimport "kind.proto";'))
    (project / "pyproject.toml").write_text('[tool.sdk.codegen]\nproto-path = ["third"]\n')
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "old")
    git(project, "checkout", "-qb", "new")
    (project / "protos" / "shop.proto").unlink()
    (project / "third" / "kind.proto").unlink()
    git(project, "commit", "-qam", "new")
    return project


FOUND = [
    "shop.Order.item (1): `int32` became `string`: the two are encoded differently (shop.proto:3) → keep `int32`, or "
    "give the new field another number and reserve 1",
    "shop.Order.kind (2): the field is gone and its number is not reserved: another field may reuse it and be misread "
    "(shop.proto:3) → write `reserved 2;` in message `Order`, or keep the field",
]


@pytest.mark.parametrize("other", ["git:main:protos", "git:main:./protos", "git:new~1:protos/shop.proto"])
def test_protos_of_a_commit(sdk: Run, repository: Path, other: str) -> None:
    done = sdk("check", "shop_app", "--against", other)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[3:] == [
        f"Against {other}: 2 changes break clients",
        f"  error: {FOUND[0]} [field-type]",
        f"  error: {FOUND[1]} [field-removed]",
    ]
    assert git(repository, "status", "--porcelain", "--untracked-files=no") == ""


def test_a_table(sdk: Run, repository: Path) -> None:
    done = sdk("check", "shop_app", "--against", "git:main:protos", "--format", "table")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "Against git:main:protos: 2 changes break clients",
        "",
        "| severity | rule | element | finding | place |",
        "| --- | --- | --- | --- | --- |",
        "| error | field-type | shop.Order.item (1) | `int32` became `string`: the two are encoded differently → keep "
        "`int32`, or give the new field another number and reserve 1 | shop.proto:3 |",
        "| error | field-removed | shop.Order.kind (2) | the field is gone and its number is not reserved: another "
        "field may reuse it and be misread → write `reserved 2;` in message `Order`, or keep the field "
        "| shop.proto:3 |",
    ]
    done = sdk("check", "shop_app", "--format", "table")
    assert (done.returncode, done.stdout) == (0, "No problems.\n")


def test_annotations(sdk: Run, repository: Path) -> None:
    done = sdk("check", "shop_app", "--against", "git:main:protos", "--format", "github")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"::error file=shop.proto,line=3,title=field-type::{FOUND[0]}",
        f"::error file=shop.proto,line=3,title=field-removed::{FOUND[1]}",
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("git:main", "write git:REF:PATH, such as git:main:protos"),
        ("git:gone:protos", "git knows no gone; fetch it (actions/checkout: fetch-depth: 0)"),
        ("git:--all:protos", "git knows no --all; fetch it (actions/checkout: fetch-depth: 0)"),
        ("git:main:none", "main has no none"),
    ],
)
def test_what_can_not_be_read(sdk: Run, repository: Path, other: str, said: str) -> None:
    done = sdk("check", "shop_app", "--against", other)
    assert (done.returncode, done.stderr) == (2, f"error: --against {other}: {said}\n")


def test_protos_with_an_error_are_named_by_commit(sdk: Run, repository: Path) -> None:
    (repository / "broken.proto").write_text('syntax = "proto3"; message {')
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "broken")
    done = sdk("check", "shop_app", "--against", "git:new:broken.proto")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()[:2]
    assert first == "error: --against git:new:broken.proto: 1 error in the protos"
    assert second.startswith("git:new:broken.proto:1:")


def test_outside_a_repository(sdk: Run, project: Path) -> None:
    done = sdk("check", "shop_app", "--against", "git:main:protos")
    said = "--against git:main:protos: the working directory is not in a git repository"
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
