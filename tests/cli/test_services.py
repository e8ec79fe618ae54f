"""`sdk services`: the list of a server's or a proto's services, and the description of a name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

import sdk.testing
from sdk._gen import serve_api_pb2
from sdk.cli.main import main
from sdk.cli.rpc.application_names import describe_lack
from tests.support.desk_server import PROTOS, Clerk, Porter
from tests.support.ports import free_port

Invoke = Callable[..., Result]
ABOUT_DESK = "// Takes tickets: one RPC of each cardinality, and some that go wrong.\n"
DESK = """\
  // Answers with the ticket itself.
  Echo(Ticket) returns (Ticket)
  // Counts down from the number.
  Count(Ticket) returns (stream Ticket)
  // Adds up the numbers.
  Add(stream Ticket) returns (Ticket)
  // Answers each ticket before the next one.
  Talk(stream Ticket) returns (stream Ticket)
  // Ends with a status that says more.
  Refuse(Ticket) returns (Ticket)
  // Answers once, and continues until the call is cancelled.
  Wait(Ticket) returns (stream Ticket)  deprecated
  // Returns the metadata of the request.
  Tell(Ticket) returns (Call)
"""
ABOUT_ANNEX = "// Has a method of the same name as another one.\n"
ANNEX = """\
  Echo(google.protobuf.StringValue) returns (google.protobuf.StringValue)
  Ring(Call) returns (Call)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(desk=Clerk.bind(), annex=Porter.bind(), other=Porter.bind()) as server:
        yield server


@pytest.fixture
def invoke(server: sdk.testing.Server) -> Invoke:
    def run(*arguments: str, target: str = server.target) -> Result:
        return CliRunner().invoke(main, ["services", target, *arguments])

    return run


def test_the_services_with_their_applications_and_health(invoke: Invoke) -> None:
    done = invoke()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        f"{ABOUT_ANNEX}desk.v1.Annex  SERVING  applications annex, other\n{ANNEX}"
        f"{ABOUT_DESK}desk.v1.Desk  SERVING  application desk\n{DESK}"
    )


def test_an_application_that_does_not_exist(invoke: Invoke, server: sdk.testing.Server) -> None:
    lack = "it has no application 'dusk'; it has annex, desk, other"
    done = invoke("--application", "dusk")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"The server at {server.target} has no services: {lack}\n"
    called = CliRunner().invoke(main, ["call", server.target, "Desk/Echo", "--application", "dusk"])
    assert called.exit_code == 2
    assert called.stderr == f"error: The server at {server.target} has no method 'Desk/Echo': {lack}\n"


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        ([], "desk", "no application is ready yet; `sdk status` shows those that start or have failed"),
        (["desk"], None, "its applications have no gRPC service"),
        (None, "desk", "it serves nothing"),
    ],
)
def test_the_reason_why_a_server_serves_nothing(names: list[str] | None, asked: str | None, said: str) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    if names is not None:

        def list_applications(*_: object) -> serve_api_pb2.ListApplicationsResponse:
            return serve_api_pb2.ListApplicationsResponse(application_names=names)

        handler = grpc.unary_unary_rpc_method_handler(
            list_applications, response_serializer=serve_api_pb2.ListApplicationsResponse.SerializeToString
        )
        server.add_registered_method_handlers("ray.serve.RayServeAPIService", {"ListApplications": handler})
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with grpc.insecure_channel(target) as channel:
            metadata = (("application", asked),) if asked else ()
            assert describe_lack(SimpleNamespace(channel=channel, metadata=metadata, target=target)) == said
    finally:
        server.stop(None).wait()


def test_the_services_of_one_application(invoke: Invoke) -> None:
    listed = f"{ABOUT_ANNEX}desk.v1.Annex  SERVING  application other\n{ANNEX}"
    assert invoke("--application", "other").stdout == listed


def test_built_in_services(invoke: Invoke) -> None:
    heads = [line.split()[0] for line in invoke("--all").stdout.splitlines() if line[0] not in " /"]
    assert heads == [
        "desk.v1.Annex",
        "desk.v1.Desk",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "ray.serve.RayServeAPIService",
    ]


def test_one_object_for_scripts(invoke: Invoke) -> None:
    annex, desk = json.loads(invoke("--json").stdout)["services"]
    assert annex["applications"] == ["annex", "other"]
    assert {key: desk[key] for key in ("name", "applications", "health", "problem")} == {
        "name": "desk.v1.Desk",
        "applications": ["desk"],
        "health": "SERVING",
        "problem": None,
    }
    assert desk["methods"][5] == {
        "name": "Wait",
        "path": "desk.v1.Desk/Wait",
        "cardinality": "unary_stream",
        "request": "desk.v1.Ticket",
        "response": "desk.v1.Ticket",
        "deprecated": True,
        "comment": "Answers once, and continues until the call is cancelled.",
    }


@pytest.mark.parametrize("name", ["desk.v1.Person", "Person", ".desk.v1.Person"])
def test_a_message(invoke: Invoke, name: str) -> None:
    done = invoke(name)
    assert (done.exit_code, done.stdout) == (
        0,
        "// desk.v1.Person, a message of desk.proto\nmessage Person {\n  string first_name = 1;\n  int32 age = 2;\n}\n",
    )


def test_a_service_an_enum_and_a_type_of_protobufs_own(invoke: Invoke) -> None:
    assert invoke("Annex").stdout == (
        f"// desk.v1.Annex, a service of desk.proto\n{ABOUT_ANNEX}"
        "service Annex {\n"
        "  rpc Echo(google.protobuf.StringValue) returns (google.protobuf.StringValue);\n"
        "  rpc Ring(Call) returns (Call);\n"
        "}\n"
    )
    assert invoke("Urgency").stdout.endswith("enum Urgency {\n  URGENCY_UNSPECIFIED = 0;\n  LOW = 1;\n  HIGH = 2;\n}\n")
    assert "int64 seconds = 1;" in invoke("Timestamp").stdout


def test_a_method_with_its_messages(invoke: Invoke) -> None:
    assert invoke("Desk/Tell").stdout.startswith(
        "// desk.v1.Desk.Tell, a method of desk.proto\n"
        "// Returns the metadata of the request.\n"
        "rpc Tell(Ticket) returns (Call);\n\n"
        "// desk.v1.Ticket\n// What a visitor asks for.\nmessage Ticket {\n"
        "  // one line\n  string title = 1;\n"
    )
    assert invoke("Ring").stdout.count("message Call {") == 1
    assert json.loads(invoke("Ring", "--json").stdout) == {
        "name": "desk.v1.Annex.Ring",
        "kind": "method",
        "file": "desk.proto",
        "proto": "rpc Ring(Call) returns (Call);\n\n// desk.v1.Call\nmessage Call {\n  string text = 1;\n}",
    }


def test_a_json_template(invoke: Invoke, server: sdk.testing.Server) -> None:
    done = invoke("Ticket", "--template")
    person = {"firstName": "", "age": 0}
    assert json.loads(done.stdout) == {
        "title": "",
        "number": 0,
        "seats": [0],
        "urgency": "URGENCY_UNSPECIFIED",
        "owner": person,
        "guests": {"": person},
        "room": "",
        "isRemote": None,
        "waiting": [person],
        "due": "1970-01-01T00:00:00Z",
        "extra": {"@type": ""},
        "note": "",
        "form": {},
        "stamp": "",
        "price": 0.0,
        "vip": False,
        "parent": None,
        "labels": {"0": ""},
    }
    data = done.stdout.replace('{\n    "@type": ""\n  }', "{}")
    called = CliRunner().invoke(main, ["call", server.target, "Desk/Echo", "--application", "desk", "-d", data])
    assert called.exit_code == 0, called.stderr


def test_protos_and_descriptors(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(target=str(PROTOS))
    listed = f"{ABOUT_ANNEX}desk.v1.Annex\n{ANNEX}{ABOUT_DESK}desk.v1.Desk\n{DESK}"
    assert (done.exit_code, done.stdout) == (0, listed)
    listed = json.loads(invoke("--json", target=str(PROTOS)).stdout)["services"]
    assert [method["comment"] for method in listed[1]["methods"]][2] == "Adds up the numbers."
    assert invoke("Desk/Add", target=str(PROTOS / "desk.proto")).stdout.startswith(
        "// desk.v1.Desk.Add, a method of desk.proto:56\n"
        "// Adds up the numbers.\n"
        "rpc Add(stream Ticket) returns (Ticket);\n\n"
        "// desk.v1.Ticket\n"
        "// What a visitor asks for.\n"
        "message Ticket {\n"
        "  string title = 1;  // one line\n"
    )
    (tmp_path / "bare.proto").write_text('syntax = "proto3"; message Bare {}')
    done = invoke(target=str(tmp_path))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{tmp_path} has no services\n")


@pytest.mark.parametrize("option", ["--connect-timeout=inf", "--max-message-length=2147483648"])
def test_a_number_that_grpc_does_not_take(invoke: Invoke, option: str) -> None:
    done = invoke(option)
    assert (done.exit_code, "is not in the range" in done.stderr) == (2, True)


def test_a_target_that_is_too_long_for_a_file(invoke: Invoke) -> None:
    name = "a" * 300
    done = invoke("--connect-timeout", "5", target=f"unix:{name}")
    assert (done.exit_code, name in done.stderr) == (2, True)


def test_descriptors_in_a_file(invoke: Invoke, server: sdk.testing.Server, tmp_path: Path) -> None:
    out = tmp_path / "desk.binpb"
    done = invoke("--descriptor-set-out", str(out))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{out}: desk.v1.Annex, desk.v1.Desk\n")
    assert invoke(target=str(out)).stdout == f"{ABOUT_ANNEX}desk.v1.Annex\n{ANNEX}{ABOUT_DESK}desk.v1.Desk\n{DESK}"
    arguments = ["call", server.target, "Ring", "--application", "annex", "--protos", str(out)]
    assert CliRunner().invoke(main, arguments).stdout == "{}\n"
    again = tmp_path / "again.binpb"
    assert invoke("--descriptor-set-out", str(again), target=str(out)).exit_code == 0
    assert again.read_bytes() == out.read_bytes()
    nowhere = tmp_path / "no" / "desk.binpb"
    done = invoke("--descriptor-set-out", str(nowhere))
    said = f"error: --descriptor-set-out {nowhere}: no such file or directory\n"
    assert (done.exit_code, done.stderr) == (2, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Tikcet"], " has no service, method or type 'Tikcet'; did you mean desk.v1.Ticket?\n"),
        (["xyzzy"], " has no service, method or type 'xyzzy'; it has desk.v1.Annex, desk.v1.Desk\n"),
        (["Echo"], "error: 'Echo' is ambiguous: desk.v1.Annex.Echo, desk.v1.Desk.Echo\n"),
        (["Desk", "--template"], "error: --template: desk.v1.Desk is a service, not a message\n"),
        (
            ["Desk", "--descriptor-set-out", "x"],
            "error: --descriptor-set-out writes all services; omit NAME.\n",
        ),
        (["--template"], "error: --template needs the NAME of a message.\n"),
        (["-I", "."], "error: -I needs a TARGET that is a proto.\n"),
    ],
)  # fmt: skip
def test_wrong_use(invoke: Invoke, server: sdk.testing.Server, arguments: list[str], said: str) -> None:
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(said.format(target=server.target))


@pytest.mark.parametrize("target", ["nowhere", "no/such.proto"])
def test_a_target_that_is_neither_a_file_nor_a_server(invoke: Invoke, target: str) -> None:
    done = invoke(target=target)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {target}: neither an existing file or folder, nor HOST:PORT\n"


def test_an_unreachable_server(invoke: Invoke) -> None:
    target = f"127.0.0.1:{free_port()}"
    done = invoke(target=target)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: The server at {target} can't be reached: ")


def test_another_server(invoke: Invoke) -> None:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        pool = DescriptorPool()
        pool.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
        # It lists a service without a descriptor, and the health service, which it does not have.
        reflection.enable_server_reflection(["gone.Service", "grpc.health.v1.Health"], server, pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            done = invoke("--all", target=f"127.0.0.1:{port}")
            assert done.exit_code == 0, done.stderr
            first, problem, second, *_ = done.stdout.splitlines()
            assert (first, second) == ("gone.Service", "grpc.health.v1.Health")
            assert "does not know 'gone.Service'" in problem
        finally:
            server.stop(None).wait()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            done = invoke(target=f"127.0.0.1:{port}")
            assert done.exit_code == 2
            assert done.stderr == (
                f"error: The server at 127.0.0.1:{port} has no server reflection. Give its protos or descriptors "
                "as TARGET.\n"
            )
        finally:
            server.stop(None).wait()
