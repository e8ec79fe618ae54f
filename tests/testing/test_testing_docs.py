"""The tests in docs/guides/testing.md run exactly as printed there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codegen.sync import Options, update

DOCS = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"
PROTO = """syntax = "proto3";
package greet;
message HelloRequest { string name = 1; }
message HelloReply { string text = 1; }
service Greeter {
  rpc SayHello(HelloRequest) returns (HelloReply);
}
"""


@pytest.mark.timeout(60)
def test_the_tests_in_the_documentation_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python (\S+)\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "greet.proto").write_text(PROTO)
    update(Options((tmp_path / "protos",), tmp_path))
    (tmp_path / "app.py").write_text("".join(code for kind, code in blocks if kind == "app.py"))
    (tmp_path / "conftest.py").write_text("".join(code for kind, code in blocks if kind == "conftest.py"))
    (tmp_path / "test_it.py").write_text("\n\n".join(code for kind, code in blocks if kind == "test"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert re.search(r"^8 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr
