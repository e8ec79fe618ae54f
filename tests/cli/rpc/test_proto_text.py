"""Proto source from descriptors compiles to the same descriptors."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import Edition, FileDescriptorProto, FileDescriptorSet

from sdk._protos.descriptors import Descriptors
from sdk.cli.proto_files import read_descriptors
from sdk.cli.rpc.proto_text import ProtoText
from tests.support.desk_server import PROTOS

HERE = Path(__file__).parents[1]
CASES = HERE.parent / "codegen" / "cases"


def compiled(folder: Path) -> FileDescriptorSet:
    return read_descriptors([folder], [], "--protos")


def bare(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return a file without the parts that the source of its definitions does not contain."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("source_code_info")
    for name in ("options", "public_dependency", "option_dependency"):
        copy.ClearField(name)
    extensions = sorted(copy.extension, key=lambda field: field.name)
    del copy.extension[:]
    copy.extension.extend(extensions)
    return copy


def header(file: FileDescriptorProto) -> str:
    syntax = file.syntax or "proto2"
    said = f"syntax = '{syntax}'"
    if syntax == "editions":
        said = f"edition = '{Edition.Name(file.edition).removeprefix('EDITION_')}'"
    package = f"package {file.package};" if file.package else ""
    imports = [f"import '{name}';" for name in file.dependency]
    imports += [f"import option '{name}';" for name in file.option_dependency]  # since edition 2024
    options = [
        f"option features.{field.name} = {field.enum_type.values_by_number[value].name};"
        for field, value in file.options.features.ListFields()
        if field.enum_type is not None
    ]
    return "\n".join([f"{said};", package, *imports, *options])


@pytest.mark.parametrize(
    "folder",
    [
        PROTOS,
        HERE / "ledger",
        *(CASES / case / "protos" for case in ("comments", "options", "syntaxes", "words")),
    ],
    ids=lambda folder: f"{folder.parent.name}/{folder.name}",
)
def test_the_proto_source_compiles_to_the_same_file(folder: Path, tmp_path: Path) -> None:
    files = compiled(folder)
    descriptors = Descriptors(files, "the protos")
    for file in files.file:
        if not file.name.startswith("google/"):
            path = tmp_path / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = ProtoText(file, descriptors.pool).definitions()
            path.write_text("\n".join([header(file), *lines, ""]))
    again = {file.name: file for file in compiled(tmp_path).file}
    assert len(again) == len(files.file)
    for file in files.file:
        assert bare(again[file.name]) == bare(file), (tmp_path / file.name).read_text()


def test_the_text_of_a_symbol() -> None:
    files = compiled(HERE / "ledger")
    ledger = next(file for file in files.file if file.name == "ledger.proto")
    text = ProtoText(ledger, Descriptors(files, "the protos").pool)
    assert text.symbol("ledger.Ledger") == (
        "// Keeps the books.\n"
        "//\n"
        "// Forever.\n"
        "service Ledger {\n"
        "  option deprecated = true;\n"
        "  // Writes one entry.\n"
        "  rpc Write(Entry) returns (Outer.Nested);\n"
        "  rpc Read(stream Outer.Nested) returns (stream Entry) {\n"
        "    option idempotency_level = NO_SIDE_EFFECTS;\n"
        "    option (.ledger.is_slow) = true;\n"
        "  }\n"
        "}"
    )
    assert text.symbol("ledger.Outer.Nested") == "message Nested {}"
    assert text.symbol("ledger.Entry.Nested.Colour") == "enum Colour {\n  RED = 0;\n}"
    with pytest.raises(KeyError):
        text.symbol("ledger.Nobody")


def test_options_of_missing_files_are_omitted() -> None:
    files = compiled(HERE / "ledger")
    ledger = next(file for file in files.file if file.name == "ledger.proto")
    assert "is_slow" not in ProtoText(ledger).symbol("ledger.Ledger.Read")
