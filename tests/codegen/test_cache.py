"""Cache of an output folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from codegen.compile import Protoc
from codegen.generated_files import GeneratedFiles
from codegen.sync import Options, SyncResult, update
from tests.support.project import CACHE, FILES, MANIFEST, PROTO, Sdk, content, put

OUT = Path("gen")
KEY = OUT / CACHE / "key"


def run() -> SyncResult:
    return update(Options((Path("protos"),), OUT))


@pytest.fixture
def generations(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Generate once, and record every generation after that."""
    run()
    made: list[object] = []
    generate = Protoc.generate

    def noted(
        self: Protoc, others: Collection[str] = (), on_generated: Callable[[], None] = lambda: None
    ) -> GeneratedFiles:
        made.append(others)
        return generate(self, others, on_generated)

    monkeypatch.setattr(Protoc, "generate", noted)
    return made


def test_git_ignores_it_without_an_entry_of_the_user(sdk: Sdk) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    sdk("protos", "--out", "gen")
    assert KEY.exists()
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert listed == [f"?? gen/{name}" for name in sorted([*FILES, MANIFEST])] + ["?? protos/greet.proto"]


@pytest.mark.parametrize(
    "lose",
    [
        lambda: shutil.rmtree(OUT / CACHE),
        lambda: KEY.unlink(),
        lambda: KEY.write_bytes(b"\xff damaged"),
        lambda: KEY.write_bytes(b""),
    ],
    ids=["no folder", "no key", "damaged", "empty"],
)
def test_without_it_a_run_generates_once_and_writes_nothing_else(generations: list[object], lose: object) -> None:
    assert callable(lose)
    before = content("gen") | {MANIFEST: (OUT / MANIFEST).read_bytes()}
    key = KEY.read_bytes()
    lose()
    assert (run().missing, len(generations)) == ((), 1)
    assert content("gen") | {MANIFEST: (OUT / MANIFEST).read_bytes()} == before
    assert KEY.read_bytes() == key
    run()
    assert len(generations) == 1


def test_an_edit_of_the_tools_generates_again(generations: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.compile._tools_digest", lambda: "edited")
    run()
    run()
    assert len(generations) == 1


def test_files_of_other_protos_that_were_checked_out_are_stale(generations: list[object]) -> None:
    new = PROTO.replace("SayHello", "SayGoodbye")
    shutil.copytree("gen", "committed", ignore=shutil.ignore_patterns(CACHE))
    put({"protos/greet.proto": new})
    run()
    made = content("gen")
    # The last run was for these protos; Git restores the old files with a manifest that matches them.
    shutil.copytree("committed", "gen", dirs_exist_ok=True)
    assert run().stale
    assert content("gen") == made
    assert len(generations) == 2


def test_check_neither_reads_nor_writes_it(sdk: Sdk) -> None:
    sdk("protos", "--out", "gen")
    key = KEY.read_text()
    shutil.rmtree(OUT / CACHE)
    assert sdk("protos", "--out", "gen", "--check").returncode == 0
    assert not (OUT / CACHE).exists()
    put({str(KEY): key, "gen/greet_sdk.py": "edited"})
    assert "gen/greet_sdk.py is stale\n" in sdk("protos", "--out", "gen", "--check").stderr
    assert KEY.read_text() == key
