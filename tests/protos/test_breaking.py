"""Comparison of two versions of a proto file, for clients of the old one."""

from __future__ import annotations

import pickle

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from sdk._protos.breaking.services import compare
from sdk._protos.descriptors import Descriptors, files_of_services, with_imports
from sdk.errors import BreakingChangeError, Change, OptionsError
from tests.protos.compatibility_cases import CASES, FILES, Case
from tests.support.proto_text import compiled, descriptors

HEAD = "syntax = 'proto3';\npackage p;\n"


def changes(old: str, new: str, json: bool = False) -> list[Change]:
    before = descriptors(old)
    return compare(before, descriptors(new), before.services, json=json)


def found(old: str, new: str, json: bool = False) -> list[str]:
    return [f"{change.severity} {change.rule} {change.path}" for change in changes(old, new, json)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_change(case: Case) -> None:
    assert found(HEAD + case.old, HEAD + case.new, case.json) == list(case.expected)


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_change_in_another_syntax(case: Case) -> None:
    assert found(case.old, case.new) == list(case.expected)


@pytest.mark.parametrize("case", [*CASES, *FILES], ids=lambda case: case.name)
def test_an_unchanged_file_has_no_changes(case: Case) -> None:
    for text in (case.old, case.new):
        text = text if text.startswith(("syntax", "edition")) else HEAD + text
        assert found(text, text, json=True) == []


OLD = """\
service Greeter {
  rpc SayHello(Request) returns (Reply);
  rpc Stop(Request) returns (Reply) { option idempotency_level = IDEMPOTENT; }
  rpc Wait(Request) returns (Reply);
  rpc Other(Reply) returns (Request);
}
service Old { rpc Do(Reply) returns (Reply); }
message Request {
  string name = 1;
  int32 age = 2;
  repeated string tags = 3;
  bytes photo = 4;
  string nick = 5;
  string first = 6;
  string last = 7;
  reserved 8;
  Color color = 9;
}
message Reply { string text = 1; string note = 2; }
enum Color { RED = 0; GREEN = 1; BLUE = 2; GREY = 3; PINK = 4; }
"""
NEW = """\
service Greeter {
  rpc SayHi(Request) returns (Reply);
  rpc Stop(Request) returns (Reply);
  rpc Wait(stream Request) returns (Reply);
  rpc Other(Text) returns (Word);
}
service New { rpc Do(Reply) returns (Reply); }
message Request {
  string full_name = 1;
  string age = 2;
  string tags = 3;
  string nick = 10;
  oneof which {
    string first = 6;
    string last = 7;
  }
  int32 level = 8;
  Color color = 9;
}
message Reply { string text = 1; reserved 2; }
enum Color { RED = 0; GREEN = 5; GREY = 3; MAUVE = 4; reserved 6; }
message Word {
  string full_name = 1; }
message Text { string a = 1; string b = 2; }
"""
TEXTS = [
    "error: p.Greeter.SayHello: the RPC is gone; it looks renamed to `SayHi`: calls to it end "
    "UNIMPLEMENTED (p.proto:4) → keep `SayHello` in addition to `SayHi` [rpc-removed]",
    "warning: p.Greeter.Stop: `IDEMPOTENT` became `IDEMPOTENCY_UNKNOWN`: clients continue to retry "
    "failed calls (p.proto:5) → keep `option idempotency_level = IDEMPOTENT;` and its guarantee "
    "[rpc-idempotency]",
    "error: p.Greeter.Wait: `rpc Wait(Request) returns (Reply)` became `rpc Wait(stream Request) "
    "returns (Reply)`: client and server disagree on streaming (p.proto:6) → keep it as it was, and "
    "add an RPC with another name [rpc-cardinality]",
    "warning: p.Greeter.Other: the request `p.Reply` became `p.Text`, and they are the same on the "
    "wire (p.proto:7) → keep the name: clients that regenerate their code must be changed "
    "[rpc-request-type]",
    "error: p.Greeter.Other: the response `p.Request` became `p.Word`, and they differ on the wire: "
    "p.Request.age (2): the field is gone and its number is not reserved: another field may reuse it "
    "and be misread (p.proto:7) → keep `p.Request`, and add an RPC for `p.Word` [rpc-response-type]",
    "error: p.Old: the service is gone; it looks renamed to `p.New`: every call ends UNIMPLEMENTED "
    "(p.proto:9) → serve both names [service-removed]",
    "warning: p.Request.name (1): its JSON name `name` became `fullName` (p.proto:11) → keep the name"
    " `name` [field-json-name]",
    "error: p.Request.age (2): `int32` became `string`: the two are encoded differently (p.proto:12) "
    "→ keep `int32`, or give the new field another number and reserve 2 [field-type]",
    "warning: p.Request.tags (3): `repeated string` became `string`: only the last of several values "
    "is read (p.proto:13) → keep `repeated string`, or give the new field another number and reserve "
    "3 [field-repeated]",
    "error: p.Request.photo (4): the field is gone and its number is not reserved: another field may "
    "reuse it and be misread (p.proto:10) → write `reserved 4;` in message `Request`, or keep the "
    "field [field-removed]",
    "error: p.Request.nick (5): the field has number 10 now: 5, which clients use, is not read as "
    "this field (p.proto:14) → give `nick` its number 5 again [field-number]",
    "warning: p.Request.level (8): the number was reserved for a removed field: peers that still use "
    "that field are misread (p.proto:19) → take another number [field-number-reserved]",
    "error: p.Request.which: `first`, `last` became members of one oneof: if several are set, only "
    "the last one is read, in what clients send (p.proto:16) → add new fields to a oneof, not old "
    "ones [field-oneof]",
    "warning: p.Reply.note (2): the field is gone: clients see it as unset (p.proto:22) → keep it "
    "while clients use it [field-removed]",
    "error: p.Color.GREEN (1): the value has number 5 now: 1, which clients use, is not read as this "
    "value (p.proto:23) → give `GREEN` its number 1 again [enum-value-number]",
    "error: p.Color.BLUE (2): the value is gone and its number is not reserved: another value may "
    "reuse it and be misread (p.proto:23) → write `reserved 2;` in enum `Color`, or keep the value "
    "[enum-value-removed]",
    "warning: p.Color.PINK (4): its JSON name `PINK` became `MAUVE` (p.proto:23) → keep `PINK`; "
    "`allow_alias` permits two names for one number [enum-value-name]",
]


def test_texts() -> None:
    texts = [f"{change.severity}: {change} [{change.rule}]" for change in changes(HEAD + OLD, HEAD + NEW, json=True)]
    assert texts == TEXTS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "required, new",
            "p.Q.a (1): the field is new and required: the server can't read a request without it (p.proto:1)"
            " → make it optional",
        ),
        (
            "required from now on",
            "p.Q.a (1): the field became required: the server can't read a request without it (p.proto:1)"
            " → keep it optional",
        ),
        (
            "no longer required",
            "p.A.a (1): the field is no longer required: clients can't read a response without it (p.proto:1)"
            " → keep it required",
        ),
        (
            "required, gone",
            "p.A.a (1): the required field is gone: clients can't read a response without it (p.proto:1)"
            " → keep the field",
        ),
        (
            "a default",
            "p.Q.a (1): the default `0` became `3`: an unset field has another value (p.proto:1) → keep the default",
        ),
        (
            "a closed enum that opens",
            "p.E: the closed enum became open: fields with a value that a closed enum does not know appear unset"
            " (p.proto:1) → keep the syntax of the file, or the `enum_type` of the enum",
        ),
        (
            "a group into a message",
            "p.Q.g (1): `group p.Q.G` became `p.Q.G`: the two are encoded differently (p.proto:1)"
            " → keep `group p.Q.G`, or give the new field another number and reserve 1",
        ),
    ],
)
def test_text_in_another_syntax(name: str, text: str) -> None:
    (case,) = [each for each in FILES if each.name == name]
    assert str(changes(case.old, case.new)[-1]) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "signs, request",
            "p.Q.a (1): `int32` became `uint32`: negative numbers become large positive ones (p.proto:3)"
            " → keep `int32`, or give the new field another number and reserve 1",
        ),
        ("narrower, request", "numbers that need more than 32 bits are truncated (p.proto:3)"),
        ("wider, signed, response", "numbers that need more than 32 bits are truncated"),
        ("fixed signs, request", "numbers of 2^63 and above become negative"),
        ("to bool, request", "every number but 0 becomes true"),
        ("number to enum, request", "`int32` became `p.Q.E`: numbers that the enum does not have arrive as unknown"),
        ("to bytes, response", "bytes that are not UTF-8 make the whole message unreadable"),
        ("message to bytes, request", "the bytes are an encoded message"),
        ("many numbers, response", "packed numbers are not read"),
        ("many messages, response", "several messages are merged into one"),
        (
            "another message that is not, request",
            "`p.Q.N` became `p.Q.O`: p.Q.N.x (1): `string` became `int32`: the two are encoded differently",
        ),
        (
            "another message that is the same, request",
            "`p.Q.O`, and the two are the same on the wire (p.proto:3)",
        ),
        ("a key, request", "p.Q.a (1) key: `string` became `int32`: the two are encoded differently (p.proto:3)"),
        ("a key, request", " → keep `string`, or add another map"),
        ("out of a oneof, response", "`a`, `b` are no longer members of one oneof: if several are set, only the"),
        ("out of a oneof, response", "in what clients receive (p.proto:3) → keep them in the oneof"),
        (
            "a value goes, reserved, request",
            "the value is gone: the server does not know the number that clients send (p.proto",
        ),
        ("its number is reserved, request", "the field is gone: data that clients send in it is lost (p.proto"),
        (
            "of a message in both directions",
            "numbers that need more than 32 bits are truncated, in what clients receive",
        ),
        ("service gone", "p.S: the service is gone: every call ends UNIMPLEMENTED → keep it while clients call it"),
        ("RPC gone", "p.S.Do: the RPC is gone: calls to it end UNIMPLEMENTED (p.proto:3) → keep it while clients call"),
    ],
)
def test_text_contains(name: str, text: str) -> None:
    (case,) = [each for each in CASES if each.name == name]
    assert text in str(changes(HEAD + case.old, HEAD + case.new, case.json)[0])


def test_a_service_that_is_defined_and_no_longer_served() -> None:
    text = f"{HEAD}service S {{ rpc Do(Q) returns (Q); }} service T {{}} message Q {{}}"
    files = descriptors(text)
    (change,) = compare(files, files, ["p.S", "p.T"], served=["p.T"])
    assert str(change) == (
        "p.S: the service is still in the proto, but no class serves it: every call ends UNIMPLEMENTED (p.proto:3)"
        " → serve it"
    )


def test_only_the_services_in_question_are_compared() -> None:
    old = descriptors(f"{HEAD}service S {{ rpc Do(Q) returns (Q); }} service T {{}} message Q {{ string a = 1; }}")
    new = descriptors(f"{HEAD}service T {{}} message Q {{ int32 a = 1; }}")
    assert compare(old, new, ["p.T"]) == []


def test_lines_come_from_the_services() -> None:
    from user_defined_protos_sdk import USER_DEFINED_SERVICE

    described = Descriptors(files_of_services([USER_DEFINED_SERVICE]), "here")
    service = described.services[USER_DEFINED_SERVICE.full_name]
    method = USER_DEFINED_SERVICE.methods[1]
    assert described.location(service) == f"user_defined_protos.proto:{USER_DEFINED_SERVICE.line}"
    assert described.location(service.methods_by_name[method.name]) == f"user_defined_protos.proto:{method.line}"
    assert described.location(method.request.DESCRIPTOR) == "user_defined_protos.proto"


def test_files_come_after_their_imports() -> None:
    from google.protobuf.api_pb2 import DESCRIPTOR

    names = [file.name for file in with_imports([DESCRIPTOR]).file]
    assert names == [f"google/protobuf/{name}.proto" for name in ("source_context", "any", "type", "api")]


def test_files_in_any_order_without_well_known_ones() -> None:
    text = 'syntax = "proto3"; import "google/protobuf/type.proto"; message M { google.protobuf.Type t = 1; }'
    complete = compiled(text)
    assert len(complete.file) == 4
    for files in (reversed(complete.file), complete.file[-1:]):
        assert Descriptors(FileDescriptorSet(file=files), "x").message("M") is not None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            [FileDescriptorProto(name="a.proto", dependency=["b.proto"])],
            "there lacks b.proto, which a.proto imports: create it with all imports (protoc: --include_imports)",
        ),
        (
            [FileDescriptorProto(name="a.proto", dependency=["google/protobuf/no.proto"])],
            "there lacks google/protobuf/no.proto, which a.proto imports: create it with all imports"
            " (protoc: --include_imports)",
        ),
        ([FileDescriptorProto(name="a.proto", syntax="proto9")], "there: a.proto can't be loaded: "),
        ([FileDescriptorProto(name="a.proto", dependency=["a.proto"])], "there: a.proto can't be loaded: "),
    ],
)
def test_invalid_files(files: list[FileDescriptorProto], said: str) -> None:
    with pytest.raises(OptionsError) as raised:
        Descriptors(FileDescriptorSet(file=files), "there")
    assert str(raised.value).startswith(said)


def test_breaking_change_error_lists_every_change_and_can_be_pickled() -> None:
    found = changes(f"{HEAD}service S {{}} service T {{}}", HEAD)
    error = BreakingChangeError("shop", found)
    assert str(error) == (
        "Application 'shop' was not updated: 2 changes would break clients of the running version\n"
        "  - p.S: the service is gone: every call ends UNIMPLEMENTED → keep it while clients call it\n"
        "  - p.T: the service is gone: every call ends UNIMPLEMENTED → keep it while clients call it\n"
        "To update it anyway, pass `allow_breaking=True` or `sdk run --allow-breaking`."
    )
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.application, again.changes) == (str(error), "shop", tuple(found))
