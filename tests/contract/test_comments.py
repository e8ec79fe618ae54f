"""The protos' comments, from the docstrings of generated bases."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from user_defined_protos_sdk import IMAGE_CLASSIFICATION_SERVICE, USER_DEFINED_SERVICE, UserDefinedServiceShim

from sdk._contract.comments import comments_of

SERVICE, OTHER = USER_DEFINED_SERVICE, IMAGE_CLASSIFICATION_SERVICE
NAME = SERVICE.full_name


def test_services_and_rpcs_of_a_file_have_their_comments_and_lines() -> None:
    found = comments_of([UserDefinedServiceShim.__module__])
    assert set(found) > {NAME, f"{NAME}.__call__", f"{NAME}.Multiplexing", OTHER.full_name}
    assert found[f"{NAME}.__call__"] == (SERVICE["__call__"].line, "Greets, and doubles the number.")
    assert found[OTHER.full_name] == (OTHER.line, "Classifies an image.")


@pytest.mark.parametrize(
    ("docstring", "comment"),
    [
        (f"Handles calls to `/{NAME}/Streaming`.", None),
        (f"Handles calls to `/{NAME}/Streaming`.\n\n        Deprecated.", None),
        ("Greets.\n\n        Twice.\n\n        Deprecated.\n        ", "Greets.\n\nTwice."),
        (None, None),
    ],
)
def test_what_the_generator_adds_is_not_a_comment(
    docstring: str | None, comment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler() -> None: ...

    handler.__doc__ = docstring
    module: Any = ModuleType("generated")
    base = {"__grpc_shim__": UserDefinedServiceShim, "Streaming": handler, "__doc__": "Says hello."}
    module.Base = type("Base", (), base)
    module.Child = type("Child", (module.Base,), {"__doc__": "A class without a service."})
    monkeypatch.setitem(sys.modules, "generated", module)
    of_method = {} if comment is None else {f"{NAME}.Streaming": (SERVICE["Streaming"].line, comment)}
    assert comments_of(["generated"]) == {NAME: (SERVICE.line, "Says hello.")} | of_method
