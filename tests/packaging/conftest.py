from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.packaging.shop import REPO, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", f"--outdir={out}", str(REPO)], REPO)
    (path,) = out.glob("*.whl")
    return path
