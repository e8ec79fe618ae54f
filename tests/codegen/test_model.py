from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest

from codegen import model
from codegen.module_names import MessageAlias
from sdk._proto_files.fingerprint import fingerprint

Build = Callable[..., CodeGeneratorRequest]


def only(request: CodeGeneratorRequest) -> model.FileModel:
    (file,) = model.files(request)
    return file


def test_a_service(request_for: Build) -> None:
    request = request_for(["SayHello", "import"])
    file = only(request)
    (service,) = file.services
    assert (file.proto, file.output) == ("greet.proto", "greet_sdk.py")
    assert file.names.own == "greet_pb2"
    assert file.exports == (
        "GREETER",
        "GreeterBase",
        "GreeterClient",
        "GreeterHandle",
        "GreeterShim",
        "GreeterSyncClient",
    )
    assert file.proto_hash == fingerprint(request.proto_file[0].SerializeToString())
    assert service.full_name == "greet.Greeter"
    assert [rpc.path for rpc in service.rpcs] == ["/greet.Greeter/SayHello", "/greet.Greeter/import"]
    assert [rpc.python_name for rpc in service.rpcs] == ["SayHello", "import_"]
    assert service.rpcs[0].request == model.MessageModel("greet.Hello", "greet_pb2.Hello")
    assert service.rpcs[0].cardinality == "UNARY_UNARY"
    assert (service.line, service.rpcs[0].line, service.comment) == (0, 0, "")  # no source info was sent


def test_the_model_is_frozen(request_for: Build) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        only(request_for()).proto = "other"  # type: ignore[misc]  # this is what is tested


def test_a_file_without_services_has_no_model(request_for: Build) -> None:
    request = request_for()
    del request.proto_file[0].service[:]
    assert list(model.files(request)) == []


def test_without_a_package(request_for: Build) -> None:
    request = request_for()
    file = request.proto_file[0]
    file.package = ""
    file.service[0].method[0].input_type = file.service[0].method[0].output_type = ".Hello"
    assert only(request).services[0].full_name == "Greeter"
    assert only(request).services[0].rpcs[0].path == "/Greeter/SayHello"


@pytest.mark.parametrize(("level", "name"), [(0, "unknown"), (1, "no_side_effects"), (2, "idempotent")])
def test_options(request_for: Build, level: int, name: str) -> None:
    request = request_for()
    options = request.proto_file[0].service[0].method[0].options
    options.deprecated = True
    options.idempotency_level = level  # type: ignore[assignment]  # the stub wants the enum's own type
    (rpc,) = only(request).services[0].rpcs
    assert (rpc.deprecated, rpc.idempotency) == (True, name)


@pytest.mark.parametrize(
    ("leading", "trailing", "comment"),
    [
        (" Says hello.\n", "", "Says hello."),
        ("", " Behind.\n", "Behind."),
        (" Before.\n", " Behind.\n", "Before."),
        (" One.\n\n   Two.  \n Three.\n\n", "", "One.\n\n  Two.\nThree."),
        (" a\r\n b\x00\x0c\u2028c\n", "", "a\nb   c"),
        ("\n \n", "", ""),
    ],
)
def test_comments_and_lines(request_for: Build, leading: str, trailing: str, comment: str) -> None:
    request = request_for()
    request.proto_file[0].source_code_info.location.add(
        path=[6, 0, 2, 0], span=[11, 2, 40], leading_comments=leading, trailing_comments=trailing
    )
    (rpc,) = only(request).services[0].rpcs
    assert (rpc.comment, rpc.line) == (comment, 12)


def test_an_rpc_named_like_something_imported_keeps_its_name(request_for: Build) -> None:
    file = only(request_for(["Any", "greet_pb2", "AsyncClient", "GREETER"]))
    assert [rpc.python_name for rpc in file.services[0].rpcs] == ["Any", "greet_pb2", "AsyncClient", "GREETER"]
    assert file.names.own == "greet_pb2_"
    assert file.services[0].names.constant == "GREETER_"
    assert file.names.runtime["Any"] == "Any_"


def test_services_whose_derived_names_clash(request_for: Build) -> None:
    request = request_for(service="A")
    request.proto_file[0].service.add(name="ASync")
    first, second = only(request).services
    assert (first.names.sync_client, second.names.async_client) == ("ASyncClient", "ASyncClient_")


@pytest.mark.parametrize(
    ("service", "base", "constant"), [("__Greeter", "GreeterBase", "GREETER"), ("_1", "Service1Base", "SERVICE1")]
)
def test_names_derived_from_a_service_are_never_private(
    request_for: Build, service: str, base: str, constant: str
) -> None:
    (derived,) = only(request_for(service=service)).names.services
    assert (derived.base, derived.constant) == (base, constant)


def test_messages_that_python_cannot_spell_get_a_name(request_for: Build) -> None:
    request = request_for(["Hello_class", "Say"], messages=["None", "__Hidden", "Hello"])
    request.proto_file[0].message_type[2].nested_type.add(name="class")
    say, hello = request.proto_file[0].service[0].method
    say.input_type, say.output_type = ".greet.None", ".greet.__Hidden"
    hello.input_type, hello.output_type = ".greet.Hello", ".greet.Hello.class"
    file = only(request)
    assert file.names.aliases == (
        MessageAlias("None_", 'getattr(greet_pb2, "None")', "greet_pb2._r_None"),
        MessageAlias("Hidden", "greet_pb2.__Hidden", "greet_pb2.__Hidden"),
        # An RPC has the name without the last underscore.
        MessageAlias("Hello_class_", 'getattr(greet_pb2.Hello, "class")', "greet_pb2.Hello._r_class"),
    )
    assert [rpc.response.expression for rpc in file.services[0].rpcs] == ["Hidden", "Hello_class_"]
    assert {"None_", "Hidden", "Hello_class_"} <= set(file.exports)


@pytest.mark.parametrize(
    ("package", "output", "imported", "loaded"),
    [
        # protoc's own names, which the modules have if the plugin runs alone
        (None, "class/a.b/greet_sdk.py", [], [("class.a.b.greet_pb2", "greet_pb2"), ("2fa_pb2", "_2fa_pb2")]),
        ("", "class_/a/b/greet_sdk.py", [("class_.a.b", "greet_pb2"), ("", "_2fa_pb2")], []),
        ("my.gen", "class_/a/b/greet_sdk.py", [(".", "greet_pb2"), ("....", "_2fa_pb2")], []),
    ],
)
def test_where_modules_are_imported_from(
    request_for: Build, package: str | None, output: str, imported: list[tuple[str, str]], loaded: list[tuple[str, str]]
) -> None:
    request = request_for(name="class/a.b/greet.proto")
    for name in ("2fa.proto", "elsewhere/import/x.proto", "elsewhere/plain.proto"):
        request.proto_file.add(name=name, package=f"p{len(request.proto_file)}").message_type.add(name="M")
    for number in (1, 2, 3):
        method = request.proto_file[0].service[0].method.add(name=f"R{number}")
        method.input_type = method.output_type = f".p{number}.M"
    request.file_to_generate.append("2fa.proto")
    (file,) = model.files(request, package)
    assert file.output == output.replace("a.b", "a/b")
    names = [(each.module, each.name) for each in file.names.imports if each.name.endswith("_pb2")]
    # Imports of other modules are not changed.
    assert names == [*imported, ("elsewhere", "plain_pb2")]
    assert [(each.name, each.alias) for each in file.names.dynamic_imports] == [
        *loaded,
        ("elsewhere.import.x_pb2", "x_pb2"),
    ]
    types = {alias.name: alias.stub for alias in file.names.aliases}
    assert types == dict.fromkeys(("Hello", "M", "M_") if loaded else ("M",), "Any")


def test_the_output_folder_may_have_other_modules(request_for: Build) -> None:
    request = request_for()
    request.proto_file.add(name="types/money.proto", package="types").message_type.add(name="Money")
    request.proto_file[0].service[0].method[0].input_type = ".types.Money"
    for together, module in ((None, "types"), (["greet.proto", "types/money.proto"], ".types")):
        (file,) = model.files(request, "my.gen", together)
        assert [each.module for each in file.names.imports if each.name == "money_pb2"] == [module]


def test_modules_of_the_same_name_are_distinguished(request_for: Build) -> None:
    request = request_for()
    for name in ("x/greet.proto", "y/greet.proto"):
        other = request.proto_file.add(name=name, package=name[0])
        other.message_type.add(name="Outer").nested_type.add(name="Inner")
    method = request.proto_file[0].service[0].method[0]
    method.input_type, method.output_type = ".x.Outer.Inner", ".y.Outer"
    file = only(request)
    modules = [each.alias for each in file.names.imports if each.name == "greet_pb2"]
    assert modules == ["greet_pb2", "x_greet_pb2", "y_greet_pb2"]
    (rpc,) = file.services[0].rpcs
    assert (rpc.request.expression, rpc.response.expression) == ("x_greet_pb2.Outer.Inner", "y_greet_pb2.Outer")
