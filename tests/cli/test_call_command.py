"""`sdk call`: every cardinality, the output on stdout and stderr, and every error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import sdk.testing
from sdk._protos.descriptors import with_imports
from sdk.cli.main import main
from tests.support.desk_server import PROTOS, Call, Clerk, Porter
from tests.support.ports import free_port

Invoke = Callable[..., Result]
LONG = "a" * 300


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(desk=Clerk.bind(), annex=Porter.bind()) as server:
        yield server


@pytest.fixture
def invoke(server: sdk.testing.Server) -> Invoke:
    """Run ``sdk call`` against the server, for the application ``desk``, in this process."""

    def run(*arguments: str, application: str | None = "desk", target: str = server.target) -> Result:
        chosen = () if application is None else ("--application", application)
        return CliRunner().invoke(main, ["call", target, *arguments, *chosen])

    return run


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# -- output -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["desk.v1.Desk/Echo", "desk.v1.Desk.Echo", "/desk.v1.Desk/Echo", "Desk/Echo", "v1.Desk.Echo"]
)
def test_a_method_by_its_name_in_full_or_in_short(invoke: Invoke, method: str) -> None:
    done = invoke(method, "-d", '{"title": "é"}')
    assert (done.exit_code, done.stdout) == (0, '{"title": "é"}\n')
    status, request_id, *_ = done.stderr.splitlines()
    assert status.startswith("OK (1 message in ")
    assert request_id.startswith("  request_id: ")


def test_a_method_alone(invoke: Invoke) -> None:
    assert lines(invoke("Count", "-d", '{"number": 2}').stdout) == [{"number": "2"}, {"number": "1"}]


def test_every_cardinality(invoke: Invoke) -> None:
    three = '{"number": 1}{"number": "2"}\n\n{"number": 3.0}'
    assert lines(invoke("Desk/Echo", "-d", '{"number": 1}').stdout) == [{"number": "1"}]
    assert lines(invoke("Count", "-d", '{"number": 3}').stdout) == [{"number": "3"}, {"number": "2"}, {"number": "1"}]
    assert lines(invoke("Add", "-d", three).stdout) == [{"number": "6"}]
    done = invoke("Talk", "-d", '{"title": "a"} {"title": "b"}')
    assert (done.exit_code, lines(done.stdout)) == (0, [{"title": "A"}, {"title": "B"}])
    assert done.stderr.startswith("OK (2 messages in ")


def test_without_data(invoke: Invoke) -> None:
    assert lines(invoke("Desk/Echo").stdout) == [{}]
    assert lines(invoke("Add").stdout) == [{}]
    assert invoke("Talk").stdout == ""


def test_a_file(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "requests.json"
    file.write_text('\ufeff{"number": 1}\n{"number": 2}\n')
    assert lines(invoke("Add", "-d", f"@{file}").stdout) == [{"number": "3"}]
    file.write_text('{"number": 1}\n{"nmber": 2}\n')
    done = invoke("Add", "-d", f"@{file}")
    said = f"error: {file}, line 2, column 2: desk.v1.Ticket has no field `nmber`; did you mean `number`?\n"
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", said)


def test_messages_that_are_not_objects_in_json(invoke: Invoke) -> None:
    done = invoke("Annex/Echo", "-d", '"hello"', application="annex")
    assert (done.exit_code, done.stdout) == (0, '"hello"\n')


def test_how_messages_are_printed(invoke: Invoke) -> None:
    data = ("-d", '{"owner": {"firstName": "a"}}')
    assert invoke("Desk/Echo", *data, "--compact").stdout == '{"owner": {"firstName": "a"}}\n'
    pretty = '{\n  "owner": {\n    "firstName": "a"\n  }\n}\n'
    assert invoke("Desk/Echo", *data, "--pretty").stdout == pretty
    (whole,) = lines(invoke("Desk/Echo", *data, "--emit-defaults", "--proto-names").stdout)
    assert whole["owner"] == {"first_name": "a", "age": 0}
    assert whole["urgency"] == "URGENCY_UNSPECIFIED"


def test_metadata_and_deadline_are_sent(invoke: Invoke) -> None:
    done = invoke(
        *("Tell", "-H", "Desk-Key: a: b", "-H", "desk-key-bin:AQI=", "--model-id", "m1", "--request-id", "r1"),
        *("--timeout", "60"),
    )
    (said,) = lines(done.stdout)
    for pair in ("desk-key='a: b'", "desk-key-bin=b'\\x01\\x02'", "multiplexed_model_id='m1'", "application='desk'"):
        assert pair in said["text"]
    assert said["text"].endswith(" within 60 s")
    assert "  request_id: r1\n" in done.stderr
    assert lines(invoke("Tell").stdout)[0]["text"].endswith("at any time")


def test_the_application_may_be_given_as_metadata(invoke: Invoke) -> None:
    assert invoke("Ring", "-H", "application: annex", application=None).exit_code == 0


def test_verbose(invoke: Invoke) -> None:
    done = invoke("Tell", "-v")
    said = done.stderr.splitlines()
    assert said[0].startswith("Calling desk.v1.Desk/Tell (unary-unary) at 127.0.0.1:")
    assert said[1] == "Initial metadata:"
    assert "  desk-floor: 2" in said
    assert "desk-floor" not in invoke("Tell").stderr


def test_a_status_with_details_and_metadata(invoke: Invoke) -> None:
    done = invoke("Refuse", "--request-id", "r1")
    status, *said = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (1, "")
    assert status.startswith("FAILED_PRECONDITION: come back (0 messages in ")
    assert said[:3] == [
        '  google.rpc.BadRequest {"fieldViolations": [{"field": "title", "description": "is empty"}]}',
        "  google.rpc.RetryInfo {}",
        '  desk.v1.Call {"text": "ring"}',
    ]
    assert {"  desk-open: no", "  desk-key-bin: AQI=", "  request_id: r1"} <= set(said)
    assert not any("grpc-status-details-bin" in line for line in said)
    assert not any(line.startswith("  date:") for line in said)  # Envoy's, in the head of a Trailers-Only response


def test_one_object_for_scripts(invoke: Invoke) -> None:
    done = invoke("Count", "-d", '{"number": 2}', "--json", "--request-id", "r1")
    found = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    assert found["messages"] == [{"number": "2"}, {"number": "1"}]
    assert found["status"] == {"code": "OK", "number": 0, "message": "", "details": []}
    assert ["request_id", "r1"] in found["trailing_metadata"]
    done = invoke("Refuse", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (1, "")
    assert found["status"]["number"] == 9
    assert found["status"]["details"][2] == {"@type": "type.googleapis.com/desk.v1.Call", "text": "ring"}


def test_the_deadline(invoke: Invoke) -> None:
    done = invoke("Wait", "--timeout", "0.2")
    assert (done.exit_code, lines(done.stdout)) == (1, [{"title": "waiting"}])
    assert done.stderr.startswith("DEADLINE_EXCEEDED: ")


def test_an_application_is_asked_for_where_there_are_several(invoke: Invoke) -> None:
    done = invoke("Ring", application=None)
    assert done.exit_code == 1
    assert done.stderr.startswith("NOT_FOUND: Application metadata not set.")
    assert done.stderr.endswith("\nGive --application: desk.v1.Annex is served by annex.\n")


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Desk/Eco"], "The server at {target} has no method 'Desk/Eco'; did you mean desk.v1.Desk/Echo?"),
        (["Xyzzy"], "The server at {target} has no method 'Xyzzy'; it has desk.v1.Desk"),
        (["Annex"], "The server at {target} has no method 'Annex'; it has desk.v1.Desk"),
        (
            ["v1.Desk"],
            "'v1.Desk' is a service; give one of its methods: desk.v1.Desk/Echo, desk.v1.Desk/Count, desk.v1.Desk/Add,"
            " desk.v1.Desk/Talk, desk.v1.Desk/Refuse, desk.v1.Desk/Wait, desk.v1.Desk/Tell",
        ),
        (
            ["Desk/Echo", "-d", "{"],
            "-d, line 1, column 2: invalid JSON: Expecting property name enclosed in double quotes",
        ),
        (["Desk/Echo", "-d", "@none"], "-d @none: no such file or directory"),
        (["Desk/Echo", "-H", "x"], "-H 'x': give 'KEY: VALUE', where KEY has letters, digits, '-', '_' and '.' only"),
        (
            ["Desk/Echo", "-H", "é: x"],
            "-H 'é: x': give 'KEY: VALUE', where KEY has letters, digits, '-', '_' and '.' only",
        ),
        (["Desk/Echo", "-H", "x: é"], "-H 'x: é': a value is printable ASCII; give other data as x-bin, in base64"),
        (["Desk/Echo", "-H", "x-bin: é"], "-H 'x-bin: é': the value of a key that ends with -bin must be base64"),
        (["Desk/Echo", "--tls-ca", "none"], "--tls-ca none: no such file or directory"),
        (["Desk/Echo", "--tls-ca", __file__], f"--tls-ca {__file__}: not a PEM file"),
        (["Desk/Echo", "--token-file", "none"], "--token-file none: no such file or directory"),
        (["Desk/Echo", "--token", "a secret"], "the token must be one word of printable ASCII"),
        (["Desk/Echo", "--tls-certificate", "x"], "--tls-certificate and --tls-private-key go together"),
        (["Desk/Echo", "--protos", "none"], "--protos none: no such file or folder"),
        (["Desk/Echo", "--protos", LONG], f"--protos {LONG}: no such file or folder"),
        (["Desk/Echo", "--request-id", "a\nb"], "--request-id 'a\\nb' is not printable ASCII"),
        (["Desk/Echo", "--model-id", "é"], "--model-id 'é' is not printable ASCII"),
    ],
)  # fmt: skip
def test_wrong_use(invoke: Invoke, server: sdk.testing.Server, arguments: list[str], said: str) -> None:
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {said.format(target=server.target)}\n"


@pytest.mark.parametrize("option", ["--tls-ca", "--token-file", "-d", "--protos"])
def test_a_file_that_can_not_be_read_for_a_reason_of_python(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
) -> None:
    file = tmp_path / "file"
    file.touch()

    def fails(path: Path, **_: object) -> str:
        raise OSError("no such device")  # the system's errors have a number and a text; this one has no `strerror`

    monkeypatch.setattr(Path, "read_bytes", fails)
    monkeypatch.setattr(Path, "read_text", fails)
    done = invoke("Desk/Echo", option, f"@{file}" if option == "-d" else str(file))
    assert done.exit_code == 2
    assert done.stderr.rstrip().endswith(": no such device")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["Desk/Echo", "-d", "{} {} {}"],
            "error: Invalid value for -d: desk.v1.Desk/Echo takes one message, not 3.\n",
        ),
        (["Desk/Echo", "-I", "."], "error: -I needs --protos.\n"),
        (["Desk/Echo", "--timeout", "0"], "error: Invalid value for '--timeout': 0.0 is not in the range x>0.\n"),
        ([], "error: Missing argument 'METHOD'.\n"),
    ],
)  # fmt: skip
def test_wrong_options(invoke: Invoke, arguments: list[str], said: str) -> None:
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(said)


def test_a_name_of_several_methods(invoke: Invoke) -> None:
    done = invoke("Echo", application=None)
    assert done.exit_code == 2
    assert done.stderr == "error: 'Echo' is ambiguous: desk.v1.Annex/Echo, desk.v1.Desk/Echo\n"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", "target 'nowhere' has no port: give HOST:PORT, such as nowhere:9000"),
        ("localhost:99999", "target 'localhost:99999': a port is at most 65535"),
        ("https://host:1/path", "the target 'https://host:1/path' must be a host and a port only"),
    ],
)
def test_invalid_targets(invoke: Invoke, target: str, said: str) -> None:
    done = invoke("Echo", target=target)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {said}")


def test_a_token_is_sent(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from.a.file\n")
    for arguments, token in ((["--token", "on.the.line"], "on.the.line"), (["--token-file", str(file)], "from.a.file")):
        (said,) = lines(invoke("Tell", *arguments).stdout)
        assert f"authorization='Bearer {token}'" in said["text"]


def test_a_token_is_not_sent_in_the_clear(invoke: Invoke) -> None:
    done = invoke("Desk/Echo", "--token", "s3cret", target="example.org:9000")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the token would be sent to example.org:9000 in the clear: ")
    assert "s3cret" not in done.stderr


def test_an_unreachable_server(invoke: Invoke) -> None:
    target = f"127.0.0.1:{free_port()}"
    for arguments in ([], ["--protos", str(PROTOS)]):
        done = invoke("Desk/Echo", *arguments, target=target)
        assert (done.exit_code, done.stdout) == (2, "")
        first, remedy = done.stderr.splitlines()
        assert first.startswith(f"error: The server at {target} can't be reached: ")
        assert "Connection refused" in first
        assert remedy == "Check that it is running. If it uses TLS, give https://HOST:PORT."


def test_a_server_that_does_not_answer(invoke: Invoke) -> None:
    import socket

    with socket.socket() as silent:  # it takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        done = invoke("Desk/Echo", "--connect-timeout", "0.3", target=target)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: The server at {target} can't be reached: no connection within 0.3 s\n")


# -- without reflection -----------------------------------------------------------------------


@contextlib.contextmanager
def bare_server() -> Iterator[str]:
    """Serve one method with grpc alone, without reflection."""

    def echo(request: Any, context: Any) -> Any:
        return request

    handler = grpc.unary_unary_rpc_method_handler(echo, Call.FromString, Call.SerializeToString)
    with ThreadPoolExecutor(2) as threads:
        bare = grpc.server(threads)
        bare.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("desk.v1.Annex", {"Ring": handler})])
        port = bare.add_insecure_port("127.0.0.1:0")
        bare.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            bare.stop(None).wait()


def test_a_server_without_reflection_needs_protos_or_descriptors(invoke: Invoke, tmp_path: Path) -> None:
    descriptors = tmp_path / "desk.binpb"
    descriptors.write_bytes(with_imports([Call.DESCRIPTOR.file]).SerializeToString())
    remedy = "Give its protos or descriptors with --protos PATH."
    with bare_server() as target:
        done = invoke("Ring", target=target)
        assert done.exit_code == 2
        assert done.stderr == f"error: The server at {target} has no server reflection. {remedy}\n"
        for path in (PROTOS, PROTOS / "desk.proto", descriptors):
            done = invoke("Ring", "-d", '{"text": "x"}', "--protos", str(path), target=target, application=None)
            assert (done.exit_code, done.stdout) == (0, '{"text": "x"}\n'), done.stderr
        done = invoke("Rng", "--protos", str(PROTOS), target=target)
        assert done.stderr == f"error: --protos {PROTOS} has no method 'Rng'; did you mean desk.v1.Annex/Ring?\n"
        done = invoke("Desk/Echo", "--protos", str(PROTOS), target=target)
        assert done.exit_code == 1
        assert done.stderr.startswith("UNIMPLEMENTED: ")


def test_protos_with_imports_from_elsewhere(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "more" / "far").mkdir(parents=True)
    far = tmp_path / "more" / "far" / "call.proto"
    far.write_text('syntax = "proto3"; package far; message Call { string text = 1; }')
    own = tmp_path / "own" / "annex.proto"
    own.write_text(
        'syntax = "proto3"; package desk.v1; import "far/call.proto";'
        "service Annex { rpc Ring(far.Call) returns (far.Call); }"
    )
    arguments = ("Ring", "-d", '{"text": "x"}', "--protos", str(own))
    done = invoke(*arguments, application="annex")
    assert done.exit_code == 2
    assert f'Import "far/call.proto" was not found in {own.parent}; -I adds a folder\n' in done.stderr
    done = invoke(*arguments, "-I", str(tmp_path / "more"), application="annex")
    assert (done.exit_code, done.stdout) == (0, '{"text": "x"}\n'), done.stderr


def test_protos_without_the_extra_that_compiles_them(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    import codegen.config  # noqa: F401  # so that there is something to take away

    monkeypatch.delattr("codegen.config")
    monkeypatch.setitem(sys.modules, "codegen.config", None)
    done = invoke("Ring", "--protos", str(PROTOS))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --protos: protos need codegen.config, which is not installed: pip install ")


def test_descriptors_that_lack_an_import(invoke: Invoke, tmp_path: Path) -> None:
    files = with_imports([Call.DESCRIPTOR.file])
    file = files.file[-1]
    file.dependency.append("gone.proto")
    (tmp_path / "desk.binpb").write_bytes(FileDescriptorSet(file=[file]).SerializeToString())
    done = invoke("Ring", "--protos", str(tmp_path / "desk.binpb"))
    assert done.exit_code == 2
    assert "lacks gone.proto, which desk.proto imports: create it with all imports" in done.stderr


def test_required_fields_of_proto2(invoke: Invoke) -> None:
    protos = ("--protos", str(Path(__file__).parent / "ledger"))
    for data in ((), ("-d", "{}")):
        done = invoke("Ledger/Write", *data, *protos)
        place = "-d, line 1, column 1" if data else "-d"
        said = f"error: {place}: ledger.Entry lacks `name`, which is required\n"
        assert (done.exit_code, done.stdout, done.stderr) == (2, "", said)


# -- TLS --------------------------------------------------------------------------------------


def test_tls(invoke: Invoke, tmp_path: Path) -> None:
    with sdk.testing.serve(Porter.bind(), tls=True) as server:
        certificate = str(server._runtime.options.tls_certificate)
        arguments = ("Ring", "-d", '{"text": "x"}')
        for target in (server.target, f"https://{server.target}", f"grpcs://{server.target}"):
            done = invoke(*arguments, "--tls-ca", certificate, target=target, application=None)
            assert (done.exit_code, done.stdout) == (0, '{"text": "x"}\n'), done.stderr
        done = invoke(*arguments, target=f"https://{server.target}")
        assert done.exit_code == 2
        assert "--tls-ca FILE" in done.stderr
        done = invoke(*arguments, "--tls-ca", certificate, "--tls-server-name", "other", target=server.target)
        assert done.exit_code == 2
        assert "--tls-server-name NAME if the certificate has another name." in done.stderr
        done = invoke(*arguments, target=server.target)
        assert done.exit_code == 2
        assert "If it uses TLS, give https://HOST:PORT." in done.stderr
        done = invoke(*arguments, "--tls-ca", certificate, target=f"http://{server.target}")
        assert done.exit_code == 2
        assert "is plain text" in done.stderr


def test_mutual_tls(invoke: Invoke, tmp_path: Path) -> None:
    from tests.support.certificates import Authority

    authority = Authority("the desk's authority")
    certificate, key = authority.sign("desk", dns=("desk.example",)).write(tmp_path, "server")
    own = authority.sign("client").write(tmp_path, "client")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate)
    options = sdk.GrpcOptions(tls_certificate=certificate, tls_private_key=key, tls_client_ca=str(ca))
    with sdk.testing.serve(Porter.bind(), options=options) as server:
        arguments = ("Ring", "--tls-ca", str(ca), "--tls-server-name", "desk.example")
        identity = ("--tls-certificate", own[0], "--tls-private-key", own[1])
        done = invoke(*arguments, *identity, target=f"https://{server.target}", application=None)
        assert (done.exit_code, done.stdout) == (0, "{}\n"), done.stderr
        done = invoke(*arguments, target=f"https://{server.target}", application=None)
        assert (done.exit_code, done.stdout) == (2, "")
