"""Modules that generated code imports, looked for without importing anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegen.importable import warnings

IMPORT = {"a_pb2.py": b"from acme.shop.v1 import shop_pb2 as acme_dot_shop\n"}


def test_folders_within_folders_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespace packages, of which none was imported before."""
    folder = tmp_path / "acme" / "shop" / "v1"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    said = list(warnings(IMPORT, [], tmp_path / "gen", ""))
    assert [line.partition("warning: ")[2].partition(",")[0] for line in said] == ["it imports acme.shop.v1.shop_pb2"]
    (folder / "shop_pb2.py").touch()
    assert list(warnings(IMPORT, [], tmp_path / "gen", "")) == []
    assert list(warnings({"acme/shop/v1/more_pb2.py": b""}, [], tmp_path / "gen", "")) == []


def test_a_module_that_several_protos_lack_has_one_warning(tmp_path: Path) -> None:
    files = {f"{name}_pb2.py": b"from acme.lost import rules_pb2 as rules\n" for name in "abc"}
    files["d_pb2.py"] = b"import other_pb2 as other\n"
    remedy = "which is neither generated nor installed; give its proto to `sdk codegen`, or install the package"
    assert list(warnings(files, [], tmp_path, "")) == [
        f"{tmp_path}/a_pb2.py and 2 more: warning: they import acme.lost.rules_pb2, {remedy} that has it",
        f"{tmp_path}/d_pb2.py: warning: it imports other_pb2, {remedy} that has it",
    ]
