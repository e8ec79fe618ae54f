"""Protos that are compiled in batches: the same output, messages and warnings as in one run of protoc."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegen import batches
from codegen import compile as compiler
from codegen.errors import CodegenError
from codegen.sources import find
from codegen.sync import Options, check, update
from sdk._proto_files.order import imports_first
from tests.support.project import put

BASE = """
syntax = "proto3";
package base;
message Base {}
// A name that is a keyword, which other stubs import.
message None {}
"""
PUBLIC = 'syntax = "proto3"; package pub; import public "base.proto"; message Pub { base.Base base = 1; }'
FIRST = """
syntax = "proto3";
package first;
import "pub.proto";
import "google/protobuf/empty.proto";
service First { rpc Get(base.Base) returns (google.protobuf.Empty); }
"""
PROTOS = {
    "protos/base.proto": BASE,
    "protos/pub.proto": PUBLIC,
    "protos/a/first.proto": FIRST,
    "protos/lambda/last.proto": 'syntax = "proto3"; package last; import "a/first.proto"; message Last {}',
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The protos in the current folder."""
    monkeypatch.chdir(tmp_path)
    put(PROTOS)
    return tmp_path


@pytest.fixture
def one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put each proto into another batch."""
    monkeypatch.setattr(batches, "_MAX_REPEATED", 100)
    monkeypatch.setattr(compiler, "batches", lambda sources: batches.batches(sources, 1))


def failure(folder: str) -> tuple[str, list[str]]:
    with pytest.raises(CodegenError) as raised:
        compiler.run(find([Path(folder)]))
    return str(raised.value), list(raised.value.details)


@pytest.mark.parametrize("package", ["", "corpus.gen"])
def test_batches_change_nothing(package: str, request: pytest.FixtureRequest) -> None:
    sources = find([Path("protos")])
    together = compiler.run(sources, package=package)
    request.getfixturevalue("one_each")
    apart = compiler.run(sources, package=package)
    assert apart.files == together.files
    assert sorted(apart.warnings) == sorted(together.warnings)
    assert [warning for warning in apart.warnings if "is unused" in warning]


def test_every_error_is_reported(request: pytest.FixtureRequest) -> None:
    put({"protos/x.proto": PUBLIC.replace("1", "0"), "protos/y.proto": FIRST.replace("Base", "Bose")})
    together = failure("protos")
    assert together[0].endswith("errors in the protos")
    request.getfixturevalue("one_each")
    assert failure("protos") == together


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("package p; message Same {}", "package p; enum Same { ZERO = 0; }"),
        ("package p; enum A { SAME = 0; }", "package p; enum B { SAME = 0; }"),
        ("package p; message q {}", "package p.q; message R {}"),
    ],
)
def test_protos_that_define_one_name(one: str, other: str, request: pytest.FixtureRequest) -> None:
    put({"two/one.proto": f'syntax = "proto3"; {one}', "two/other.proto": f'syntax = "proto3"; {other}'})
    together = failure("two")
    assert "is already defined" in " ".join(together[1])
    request.getfixturevalue("one_each")
    assert failure("two") == together


# Each proto is a batch, and each batch starts two processes.
TWO = Options((Path("protos/base.proto"), Path("protos/pub.proto")), Path("gen"), package="gen")


@pytest.mark.usefixtures("one_each")
def test_an_unchanged_tree_is_read_and_not_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert update(TWO).missing
    monkeypatch.setattr(compiler.Protoc, "generate", None)
    assert update(TWO).is_up_to_date


@pytest.mark.usefixtures("one_each")
def test_a_changed_proto_makes_only_its_files_stale() -> None:
    update(TWO)
    put({"protos/base.proto": BASE.replace("// A", "// Another")})
    assert update(TWO).stale == ("base_pb2.pyi",)
    assert check(TWO).is_up_to_date


def test_a_proto_is_in_no_earlier_batch_than_its_imports() -> None:
    sizes = dict.fromkeys("fedcba", 10)
    imports = {"f": ["a", "elsewhere"], "e": ["f"], "b": ["e"], "a": ["c"]}
    divided = batches.divide(sizes, imports, 20)
    assert [len(batch) for batch in divided] == [2, 2, 2]
    assert sorted(name for batch in divided for name in batch) == sorted(sizes)
    place = {name: number for number, batch in enumerate(divided) for name in batch}
    assert all(place[name] <= place[user] for user, names in imports.items() for name in names if name in sizes)


def test_batches_grow_where_all_import_nearly_all() -> None:
    names = [str(number) for number in range(64)]
    imports = {name: names[:number] for number, name in enumerate(names)}
    divided = batches.divide(dict.fromkeys(names, 1), imports, 1)
    parsed = sum(len(imports_first(batch, imports.__getitem__)) for batch in divided)
    assert 1 < len(divided) < 8
    assert parsed <= 2.5 * len(names)
