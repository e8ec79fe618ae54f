from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from codegen import plugin

if TYPE_CHECKING:
    import pytest

Build = Callable[..., CodeGeneratorRequest]


def test_it_declares_what_it_supports(request_for: Build) -> None:
    response = plugin.respond(request_for())
    assert response.supported_features == (
        CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
    )
    assert (response.minimum_edition, response.maximum_edition) == (Edition.EDITION_PROTO2, Edition.EDITION_2024)
    assert [file.name for file in response.file] == ["greet_sdk.py"]
    assert not response.HasField("error")


def test_an_unknown_parameter_is_an_error(request_for: Build) -> None:
    response = plugin.respond(request_for(parameter="fast=1"))
    assert response.error == "unknown parameter 'fast=1'; protoc-gen-sdk takes package=NAME"
    assert not response.file


def test_what_is_wrong_with_the_request_is_an_error(request_for: Build) -> None:
    response = plugin.respond(request_for(parameter="package=my-gen"))
    assert response.error == "package 'my-gen': 'my-gen' is no name of a Python package"
    assert not response.file


def test_a_bug_is_no_traceback(request_for: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.model.files", lambda request, package: 1 / 0)
    response = plugin.respond(request_for())
    assert response.error == (
        "internal error: ZeroDivisionError: division by zero; this is a bug in ray-grpc-sdk, please report it"
    )
