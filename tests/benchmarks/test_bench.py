"""The benchmark's own calls: each work gets the answer that its figures count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.benchmarks import metric_instructions
from tests.benchmarks.bench import started
from tests.benchmarks.load import LoadError, verify
from tests.benchmarks.works import BARE, WORKS
from tests.support.cluster import ROOT


def test_every_work_is_answered_as_it_says(tmp_path: Path) -> None:
    with open(tmp_path / "guard", "w") as guard, started(BARE, tmp_path / "bare", guard) as server:
        for work in WORKS:
            if BARE in work.servers:
                verify(work, server)


def test_another_answer_stops_the_benchmark(tmp_path: Path) -> None:
    (unary,) = (work for work in WORKS if work.name == "unary, 1 stream")
    with (
        open(tmp_path / "guard", "w") as guard,
        started(BARE, tmp_path / "bare", guard) as server,
        pytest.raises(LoadError, match="Fails"),
    ):
        verify(dataclasses.replace(unary, method="Fails", name="Fails"), server)


@pytest.mark.parametrize("module", metric_instructions.COUNTING)
def test_the_code_that_counts_a_call_can_be_taken_out(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    compile(metric_instructions.without_metrics(module, path.read_text()), path, "exec")
