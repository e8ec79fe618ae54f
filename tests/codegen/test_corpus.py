"""Protos from distributions on PyPI, generated, imported, bound and type-checked."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tests.codegen import corpus
from tests.codegen.corpus import Report

# Folder of the protos in each distribution.
DISTRIBUTIONS = {"googleapis-common-protos": "", "grpc-google-iam-v1": "", "grpcio-tools": "grpc_tools/_proto/"}
# The folder of each layout's code, by the package that it is in.
ROOTS = {"": "rooted", corpus.PACKAGE: "packaged"}

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def reports(protos: Path, folder: Path) -> dict[str, Report]:
    """A report for a folder on ``sys.path``, and one for a package."""
    found = {}
    for package, root in ROOTS.items():
        # In a folder on sys.path, Python finds installed packages first, unless they are namespace packages.
        options = [] if package else ["--exclude", "google/iam", "--exclude", "google/protobuf"]
        found[package] = corpus.examine(folder / root, [str(protos), *options], package, types=False)
    return found


@pytest.fixture(params=ROOTS)
def report(reports: dict[str, Report], request: pytest.FixtureRequest) -> Report:
    return reports[request.param]


def test_the_corpus_is_not_empty(report: Report) -> None:
    assert (report.protos > 60, report.services > 1, report.modules > 120) == (True, True, True)
    assert 0 < report.memory < 1e9
    assert report.seconds > 0


def test_every_module_imports(report: Report) -> None:
    assert report.imports == []


def test_every_service_can_be_bound(report: Report) -> None:
    assert report.binds == []


@pytest.mark.usefixtures("reports")
def test_type_checkers_report_nothing(folder: Path) -> None:
    assert corpus.check_types(folder, [folder / root for root in ROOTS.values()]) == []
