"""The Python and proto blocks of the documentation run as printed there, in one process for all of them.

``tests/support/docs_blocks.py`` has the names that a block takes for granted, and says which blocks run elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codegen.sync import Options, update
from tests.test_docs import PAGES, ROOT

_PROTO = re.compile(r"^```proto\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a block that shows methods only leaves out.
_AROUND = """syntax = "proto3";
package excerpt{number};
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/empty.proto";
{messages}
service Excerpt {{
{methods}}}
"""
_MESSAGE = {
    "GetBookRequest": "string name = 1;",
    "PutPictureRequest": "string name = 1; google.api.HttpBody picture = 2;",
    "GetPictureRequest": "string name = 1;",
}


def whole_proto(block: str, number: int) -> str:
    """Return a block as a file: one that shows methods only gets the messages that they name."""
    if block.startswith("syntax"):
        return block
    named = dict.fromkeys(
        re.findall(r"[(](?:stream )?(\w+)[)]", re.sub(r"^ *option.*$", "", block, flags=re.MULTILINE))
    )
    messages = "\n".join(f"message {name} {{ {_MESSAGE.get(name, 'string text = 1;')} }}" for name in named)
    return _AROUND.format(number=number, messages=messages, methods=block)


def proto_blocks() -> list[str]:
    """Return the proto blocks of all pages; those of checks.md have a separate test."""
    return [block for page in PAGES if page.name != "checks.md" for block in _PROTO.findall(page.read_text())]


def test_proto_blocks_compile(tmp_path: Path) -> None:
    blocks = proto_blocks()
    (tmp_path / "protos").mkdir()
    for number, block in enumerate(blocks):
        (tmp_path / "protos" / f"block{number}.proto").write_text(whole_proto(block, number))
    (site,) = {path.parents[2] for path in Path(sys.prefix).glob("lib/python*/site-packages/google/api/http.proto")}
    update(Options((tmp_path / "protos",), tmp_path / "gen", proto_path=(site,)))
    assert len(list((tmp_path / "gen").glob("*_sdk.py"))) == len(blocks)


@pytest.mark.timeout(120)
def test_python_blocks_run(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guides/testing.md").read_text()
    blocks = re.findall(r"^```python (\S+)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "greet.proto").write_text(_PROTO.findall((ROOT / "README.md").read_text())[0])
    update(Options((tmp_path / "protos",), tmp_path))
    (tmp_path / "app.py").write_text("".join(code for kind, code in blocks if kind == "app.py"))
    (tmp_path / "conftest.py").write_text("".join(code for kind, code in blocks if kind == "conftest.py"))
    (tmp_path / "test_it.py").write_text("\n\n".join(code for kind, code in blocks if kind == "test"))
    (tmp_path / "test_blocks.py").write_text((ROOT / "tests/support/docs_blocks.py").read_text())
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--disable-warnings"],
        cwd=tmp_path,
        # The installed plugins take longer to import than pytest.
        env={**os.environ, "PYTHONPATH": path, "DOCS_ROOT": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout
    assert int(passed[1]) > 25, "8 tests of the guide, and one for each block"
