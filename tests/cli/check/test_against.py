"""`sdk check --against`: the other version from a file, a folder of protos, or a server."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection
from user_defined_protos_sdk import IMAGE_CLASSIFICATION_SERVICE, USER_DEFINED_SERVICE

from sdk._protos.descriptors import with_imports
from sdk.cli.check.against import compare_against
from sdk.cli.check.report import VersionComparison
from sdk.errors import OptionsError, ServerError
from tests.support.ports import free_port

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SERVICES = [USER_DEFINED_SERVICE, IMAGE_CLASSIFICATION_SERVICE]
GUIDE = "userdefinedprotos"
NAMES = ("UserDefinedService", "ImageClassificationService", "Gone")


def guide() -> FileDescriptorSet:
    return with_imports([USER_DEFINED_SERVICE.file])


def other() -> FileDescriptorSet:
    """Return a version of the guide's proto with a different type of the name, and with another service."""
    files = guide()
    (file,) = files.file
    message = next(each for each in file.message_type if each.name == "UserDefinedMessage")
    message.field[0].type = FieldDescriptorProto.TYPE_INT32
    file.service.add(name="Gone")
    return files


def felt(comparison: VersionComparison) -> list[str]:
    return [f"{change.severity} {change.rule} {change.path}" for change in comparison.changes]


FELT = [f"error service-removed {GUIDE}.Gone", f"error field-type {GUIDE}.UserDefinedMessage.name (1)"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_file_of_descriptors(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "old.binpb"
    file.write_bytes(compress(other().SerializeToString()))
    comparison = compare_against(SERVICES, str(file), strict=False)
    assert felt(comparison) == FELT
    assert comparison.services == (
        f"{GUIDE}.UserDefinedService",
        f"{GUIDE}.ImageClassificationService",
        f"{GUIDE}.Gone",
    )
    file.write_bytes(compress(guide().SerializeToString()))
    assert felt(compare_against(SERVICES, str(file), strict=True)) == []


def test_services_that_are_not_checked_here_are_not_compared(tmp_path: Path) -> None:
    file = tmp_path / "same.binpb"
    file.write_bytes(guide().SerializeToString())
    comparison = compare_against([USER_DEFINED_SERVICE], str(file), strict=False)
    assert (comparison.services, comparison.changes) == ((f"{GUIDE}.UserDefinedService",), ())


def test_protos(sdk: Run, project: Path) -> None:
    old = project / "old"
    old.mkdir()
    text = (project / "shop.proto").read_text()
    (old / "shop.proto").write_text(text.replace("string item = 1;", "int32 item = 1; bool gift = 2;"))
    (old / "other.proto").write_text('syntax = "proto3"; package other; service Other {}')
    expected = [
        "  error: shop.Order.item (1): `int32` became `string`: the two are encoded differently (shop.proto:3) → keep"
        " `int32`, or give the new field another number and reserve 1 [field-type]",
        "  error: shop.Order.gift (2): the field is gone and its number is not reserved: another field may reuse"
        " it and be misread (shop.proto:3) → write `reserved 2;` in message `Order`, or keep the field [field-removed]",
    ]
    for path in ("old", "old/shop.proto"):
        done = sdk("check", "shop_app", "--against", path)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.splitlines()[3:] == [f"Against {path}: 2 changes break clients", *expected]
    # Protos that the code was not generated from have other line numbers.
    (project / "shop.proto").write_text(f"\n{text}\nmessage More {{}}\n")
    assert "(shop.proto) → keep" in sdk("check", "shop_app", "--against", "old").stdout
    (project / "shop.proto").write_text(text)
    done = sdk("check", "shop_app", "--against", "shop.proto", "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[3:] == ["Against shop.proto: nothing breaks clients"]
    done = sdk("check", "shop_app", "--against", "old/other.proto")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[3:] == [
        "Against old/other.proto: nothing to compare: it has other.Other, not shop.Shop"
    ]


def test_lost_data_is_a_problem_with_strict(sdk: Run, project: Path) -> None:
    text = (project / "shop.proto").read_text()
    (project / "old.proto").write_text(text.replace("string item = 1;", "string thing = 1;"))
    assert sdk("check", "shop_app", "--against", "old.proto").returncode == 0
    done = sdk("check", "shop_app", "--against", "old.proto", "--strict", "--format", "github")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "::warning file=shop.proto,line=3,title=field-json-name::shop.Order.thing (1): its JSON name `thing` became"
        " `item` (shop.proto:3) → keep the name `thing`\n"
    )


def test_protos_with_an_error(sdk: Run, project: Path) -> None:
    (project / "broken.proto").write_text("syntax = 'proto3'; message {")
    done = sdk("check", "shop_app", "--against", "broken.proto")
    assert done.returncode == 2
    assert done.stdout.startswith("Counter: fits")
    assert done.stderr.startswith("error: --against broken.proto: 1 error in the protos\nbroken.proto:1:")


def test_invalid_other_versions(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    text = tmp_path / "text"
    text.write_bytes(b"hello")
    cut = tmp_path / "cut"
    cut.write_bytes(gzip.compress(b"x" * 100)[:-9])
    bare = tmp_path / "bare"
    bare.write_bytes(FileDescriptorSet(file=[{"name": "a.proto"}]).SerializeToString())
    none = "not a file of descriptors; make one with `protoc --include_imports --descriptor_set_out`"
    for path, said in {
        empty: none,
        text: none,
        cut: "can't be read: Compressed file ended before the end-of-stream marker was reached",
        bare: "it has no service",
        tmp_path / "no": "neither an existing file or folder, nor git:REF:PATH or HOST:PORT[/APPLICATION]",
    }.items():
        with pytest.raises(OptionsError) as raised:
            compare_against(SERVICES, str(path), strict=False)
        assert str(raised.value) == f"--against {path}: {said}"


@contextlib.contextmanager
def serving(files: FileDescriptorSet, *names: str) -> Iterator[str]:
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        reflection.enable_server_reflection(
            [*names, "grpc.health.v1.Health", "ray.serve.RayServeAPIService"], server, pool
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_a_server() -> None:
    names = [f"{GUIDE}.{name}" for name in ("UserDefinedService", "Gone")]
    with serving(other(), *names) as address:
        assert felt(compare_against(SERVICES, address, strict=False)) == FELT
        assert felt(compare_against(SERVICES, f"{address}/app", strict=False)) == FELT
    with serving(guide(), *names[:1], f"{GUIDE}.ImageClassificationService") as address:
        comparison = compare_against([USER_DEFINED_SERVICE], address, strict=False)
        assert (comparison.services, comparison.changes) == ((names[0],), ())
        # Services of one application must not be removed.
        comparison = compare_against([USER_DEFINED_SERVICE], f"http://{address}/app", strict=False)
        assert felt(comparison) == [f"error service-removed {GUIDE}.ImageClassificationService"]
        assert "no class serves it" in comparison.changes[0].message
        comparison = compare_against(SERVICES, f"{address}/app", strict=False, served={names[0]})
        assert felt(comparison) == [f"error service-removed {GUIDE}.ImageClassificationService"]


def test_a_server_without_services_or_unreachable() -> None:
    with serving(guide()) as address:
        with pytest.raises(OptionsError, match=r"/app: application 'app' has no services$"):
            compare_against(SERVICES, f"{address}/app", strict=False)
        with pytest.raises(OptionsError, match=r": it has no services$"):
            compare_against(SERVICES, address, strict=False)
    address = f"127.0.0.1:{free_port()}"
    for other_version in (address, f"https://{address}/app"):
        with pytest.raises(ServerError, match=f"^The server at {address} can't be reached"):
            compare_against(SERVICES, other_version, strict=False)


def test_services_that_are_not_exposed_are_not_compared(sdk: Run, project: Path) -> None:
    source = (project / "shop_app.py").read_text()
    (project / "hidden.py").write_text(source.replace("@grpc_deployment", "@grpc_deployment(expose=False)"))
    (project / "old.proto").write_text((project / "shop.proto").read_text().replace("string item", "int32 item"))
    assert "1 change breaks clients" in sdk("check", "shop_app", "--against", "old.proto").stdout
    done = sdk("check", "hidden", "--against", "old.proto")
    assert (done.returncode, done.stdout.startswith("Counter: fits")) == (0, True)
    assert "Against old.proto: nothing to compare: it has shop.Shop, clients can't call any service here" in done.stdout


def test_classes_that_do_not_fit_are_compared_too(sdk: Run, project: Path) -> None:
    source: Any = (project / "shop_app.py").read_text()
    (project / "bad.py").write_text(source.replace("def Buy", "def Bye"))
    (project / "old.proto").write_text((project / "shop.proto").read_text().replace("string item", "int32 item"))
    done = sdk("check", "bad", "--against", "old.proto")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Counter: 1 problem (bad.py:7)\n")
    assert "\nAgainst old.proto: 1 change breaks clients\n" in done.stdout


def test_nothing_is_compared_where_the_import_failed(sdk: Run, project: Path) -> None:
    (project / "bad.py").write_text("1 / 0\n")
    done = sdk("check", "bad", "--against", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("error: ") == 1
