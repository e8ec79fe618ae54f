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
