"""``sdk check --fix``: the missing methods in the class, in its own style, and no other change."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdk._contract.class_rules import check_class, find_unannotated
from sdk._contract.definition import collect_definition_errors
from sdk.cli.check.missing_methods import write_missing_methods
from sdk.errors import OptionsError

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_numbers = itertools.count()
HEADER = """\
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_sdk import ImageClassificationServiceBase, UserDefinedServiceBase

from sdk import grpc_deployment
"""


@pytest.fixture
def fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module, fix its classes, and return its new text; check that the result fits and stays as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def classes_of(path: Path) -> list[type]:
        name = f"{path.stem}"
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        with collect_definition_errors():
            module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        return [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]

    def run(source: str) -> str:
        path = tmp_path / f"fixed_{next(_numbers)}.py"
        path.write_bytes(source.encode())
        write_missing_methods(classes_of(path))
        written = path.read_bytes().decode()
        again = path.with_name(f"{path.stem}_again.py")
        again.write_bytes(written.encode())
        for cls in classes_of(again):
            assert check_class(cls) == []
            assert find_unannotated(cls) == []
        assert write_missing_methods(classes_of(again)) == []
        return written

    return run


def test_methods_of_every_kind(fix: Callable[[str], str]) -> None:
    source = (
        f'{HEADER}\n\n@grpc_deployment\nclass Service(UserDefinedServiceBase):\n    """Does much."""\n\n\nlast = 1\n'
    )
    assert fix(source) == (
        f"from collections.abc import AsyncIterator\n\n{HEADER}\n\n"
        "@grpc_deployment\n"
        "class Service(UserDefinedServiceBase):\n"
        '    """Does much."""\n'
        "\n"
        "    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:\n"
        "        raise NotImplementedError\n"
        "\n"
        "    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:\n"
        "        raise NotImplementedError\n"
        "\n"
        "    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:\n"
        "        raise NotImplementedError\n"
        "        yield UserDefinedResponse()\n"
        "\n\nlast = 1\n"
    )


def test_a_sync_class_gets_sync_methods(fix: Callable[[str], str]) -> None:
    written = fix(
        "import os\nfrom typing import Iterator\n\n"
        f"{HEADER}\n\nclass Service(UserDefinedServiceBase):\n"
        "    def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:\n"
        "        return UserDefinedResponse()  # done\n"
        "    # The end.\n"
    )
    assert written.endswith(
        "    # The end.\n\n"
        "    def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:\n"
        "        raise NotImplementedError\n"
        "\n"
        "    def Streaming(self, request: UserDefinedMessage) -> Iterator[UserDefinedResponse]:\n"
        "        raise NotImplementedError\n"
        "        yield UserDefinedResponse()\n"
    )
    assert written.startswith("import os\nfrom typing import Iterator\n\nfrom user_defined")


@pytest.mark.parametrize("body", [":\n\tpass", ":\n\t...\n", ": ...", ": pass  # later", ':\n\t"""Doc."""\n\n\tpass\n'])
def test_a_placeholder_is_replaced(fix: Callable[[str], str], body: str) -> None:
    written = fix(f"from user_defined_protos_sdk import ImageClassificationServiceBase as Base\n\nclass A(Base){body}")
    doc = '\t"""Doc."""\n\n' if "Doc" in body else ""
    comment = "  # later" if "later" in body else ""
    indent = "\t" if "\t" in body else "    "
    assert written == (
        "from user_defined_protos_pb2 import ImageClass, ImageData\n"
        "from user_defined_protos_sdk import ImageClassificationServiceBase as Base\n\n"
        f"class A(Base):{comment}\n{doc}"
        f"{indent}async def Predict(self, request: ImageData) -> ImageClass:\n{indent * 2}raise NotImplementedError\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import user_defined_protos_pb2 as pb", "import user_defined_protos_pb2 as pb"),
        (
            "from user_defined_protos_pb2 import ImageData",
            "from user_defined_protos_pb2 import ImageClass, ImageData",
        ),
        (
            "from user_defined_protos_pb2 import (\n    ImageData as Data,\n)",
            "from user_defined_protos_pb2 import (\n    ImageClass,\n    ImageData as Data,\n)",
        ),
        (
            "from user_defined_protos_pb2 import ImageData  # noqa: F401",
            "from user_defined_protos_pb2 import ImageData  # noqa: F401\n"
            "from user_defined_protos_pb2 import ImageClass",
        ),
    ],
)
def test_imports_are_merged(fix: Callable[[str], str], before: str, after: str) -> None:
    rest = "import user_defined_protos_sdk as sdk_\n\n\nclass A(sdk_.ImageClassificationServiceBase):\n    limit = 3\n"
    written = fix(f"{before}\n{rest}")
    assert written.startswith(f"{after}\n{rest}")


def test_a_name_that_is_taken_is_not_used(fix: Callable[[str], str]) -> None:
    written = fix(
        '"""Docs."""\n\nimport user_defined_protos_sdk as s\n\n\n'
        "class ImageData: ...\n\n\nclass A(s.ImageClassificationServiceBase):\n    limit = 3\n".replace(
            "class ImageData: ...", "ImageData = 3"
        )
    )
    assert "from user_defined_protos_pb2 import ImageClass, ImageData as ImageData_\n" in written
    assert "async def Predict(self, request: ImageData_) -> ImageClass:" in written


def test_two_classes_of_one_file_with_its_line_ends(fix: Callable[[str], str]) -> None:
    classes = (
        "\n\nclass A(ImageClassificationServiceBase):\n  x = 1\n\n\nclass B(ImageClassificationServiceBase):\n  y = 2"
    )
    written = fix((HEADER + classes).replace("\n", "\r\n"))
    assert written.count("\n") == written.count("\r\n")
    assert written.count("  async def Predict(self, request: ImageData) -> ImageClass:") == 2


def test_relative_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "a_package_to_fix"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "names.py").write_text("from user_defined_protos_sdk import *\n")
    app = package / "app.py"
    app.write_text(
        "from .names import ImageClassificationServiceBase\n\n\nclass A(ImageClassificationServiceBase):\n    x = 1\n"
    )
    module: Any = importlib.import_module("a_package_to_fix.app")
    write_missing_methods([module.A])
    assert app.read_text().startswith(
        "from user_defined_protos_pb2 import ImageClass, ImageData\n\n"
        "from .names import ImageClassificationServiceBase\n"
    )


def test_a_misspelled_method_is_left_to_its_author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = HEADER + "\n\nclass A(ImageClassificationServiceBase):\n    def predict(self, request): ...\n"
    (tmp_path / "a_misspelled_app.py").write_text(text)
    module: Any = importlib.import_module("a_misspelled_app")
    assert write_missing_methods([module.A]) == []
    assert (tmp_path / "a_misspelled_app.py").read_text() == text


def test_only_files_of_the_working_directory_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "app_elsewhere.py").write_text(HEADER + "\n\nclass A(ImageClassificationServiceBase):\n    x = 1\n")
    module: Any = importlib.import_module("app_elsewhere")
    with pytest.raises(OptionsError, match=r"--fix: .*app_elsewhere\.py, which defines A, is not in the working dir"):
        write_missing_methods([module.A])


BAD = """\
from sdk import grpc_deployment
from shop_sdk import ShopBase


@grpc_deployment
class Counter(ShopBase):
    limit = 3
"""
FIXED = """\
from sdk import grpc_deployment
from shop_pb2 import Order, Receipt
from shop_sdk import ShopBase


@grpc_deployment
class Counter(ShopBase):
    limit = 3

    async def Buy(self, request: Order) -> Receipt:
        raise NotImplementedError
"""


def test_the_command_writes_the_methods(sdk: Run, project: Path) -> None:
    (project / "bad.py").write_text(BAD)
    done = sdk("check", "bad")
    assert done.returncode == 1
    assert done.stderr == (
        "note: `sdk check --fix` writes the methods that a class lacks; with @grpc_deployment(partial=True) their "
        "calls end with UNIMPLEMENTED\n"
    )
    done = sdk("check", "bad", "--fix")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Counter: wrote Buy (bad.py:6)\nCounter: fits (bad.py:6)\n")
    assert (project / "bad.py").read_text() == FIXED
    done = sdk("check", "bad", "--fix", "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote" not in done.stdout


def test_a_partial_class_is_listed_and_not_changed(sdk: Run, project: Path) -> None:
    text = BAD.replace("@grpc_deployment", "@grpc_deployment(partial=True)")
    (project / "bad.py").write_text(text)
    done = sdk("check", "bad", "--fix", "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "Counter: fits (bad.py:6)\n  shop.Shop (shop.proto:5)\n    rpc Buy(Order) returns (Receipt): UNIMPLEMENTED\n"
    )
    assert (project / "bad.py").read_text() == text
