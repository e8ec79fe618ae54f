"""Protos from distributions on PyPI, generated, imported, bound and type-checked."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tests.codegen import corpus
from tests.codegen.corpus import Report

# Folder of the protos in each distribution.
DISTRIBUTIONS = {"googleapis-common-protos": "", "grpc-google-iam-v1": "", "grpcio-tools": "grpc_tools/_proto/"}

pytestmark = pytest.mark.timeout(600)  # a first run of the type checkers analyses gRPC and protobuf


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protos")
    for name, below in DISTRIBUTIONS.items():
        for file in importlib.metadata.files(name) or ():
            if file.suffix == ".proto":
                target = folder / file.as_posix().removeprefix(below)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_binary())
    return folder


@pytest.fixture(scope="module", params=["", corpus.PACKAGE])
def report(protos: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Report:
    # In a folder on sys.path, Python finds installed packages first, unless they are namespace packages.
    options = [] if request.param else ["--exclude", "google/iam", "--exclude", "google/protobuf"]
    return corpus.examine(tmp_path_factory.mktemp("corpus"), [str(protos), *options], request.param)


def test_the_corpus_is_not_empty(report: Report) -> None:
    assert (report.protos > 60, report.services > 1, report.modules > 120) == (True, True, True)
    assert 0 < report.memory < 1e9
    assert report.seconds > 0


def test_every_module_imports(report: Report) -> None:
    assert report.imports == []


def test_every_service_can_be_bound(report: Report) -> None:
    assert report.binds == []


def test_type_checkers_report_nothing(report: Report) -> None:
    assert report.types == []
