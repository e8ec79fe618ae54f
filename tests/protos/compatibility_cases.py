"""Changes of a proto file, each with its effects on clients of the old version."""

from __future__ import annotations

from typing import NamedTuple

RPC = "service S { rpc Do(Q) returns (A); }"


class Case(NamedTuple):
    """One change. ``expected`` has a line `severity rule path` for each effect."""

    name: str
    old: str
    new: str
    expected: tuple[str, ...] = ()
    json: bool = False


def both(name: str, old: str, new: str, request: str = "", response: str = "") -> tuple[Case, Case]:
    """Return a change of fields as two cases: in the request message and in the response message.

    Args:
        name: Name of the change.
        old: The old fields.
        new: The new fields.
        request: Expected effects in the request, one a line, with ``M`` for the message.
        response: Expected effects in the response.
    """
    return (
        _of_message(f"{name}, request", "Q", "A", old, new, request),
        _of_message(f"{name}, response", "A", "Q", old, new, response),
    )


def _of_message(name: str, message: str, other: str, old: str, new: str, expected: str) -> Case:
    rest = f"message {other} {{}}"
    lines = tuple(line.replace(" M", f" p.{message}") for line in expected.splitlines())
    return Case(name, *(f"{RPC} message {message} {{ {fields} }} {rest}" for fields in (old, new)), lines)


def same(name: str, old: str, new: str) -> tuple[Case, Case]:
    """Return a change of fields without effect in either direction."""
    return both(name, old, new)


def everywhere(name: str, old: str, new: str, effects: str) -> tuple[Case, Case]:
    """Return a change of fields with the same effects in both directions."""
    return both(name, old, new, effects, effects)


EMPTY = "message Q {} message A {}"
FIELDS = [
    # -- without effects ----------------------------------------------------------------------
    *same("a new field", "string a = 1;", "string a = 1; int32 b = 2; map<string, A> c = 3;"),
    *same("another order", "string a = 1; int32 b = 2;", "int32 b = 2; string a = 1;"),
    *same("another name", "string a = 1;", "string b = 1;"),
    *same("comments", "string a = 1;", "/* A. */ string a = 1; /* B. */"),
    *same("optional", "string a = 1; int32 b = 2;", "optional string a = 1; optional int32 b = 2;"),
    *same("no longer optional", "optional string a = 1;", "string a = 1;"),
    *same("packed", "repeated int32 a = 1;", "repeated int32 a = 1 [packed = false];"),
    *same("deprecated", "string a = 1;", "string a = 1 [deprecated = true];"),
    *same("reserved besides", "string a = 1;", 'string a = 1; reserved 2, 4 to 7; reserved "x";'),
    *same("one field into a new oneof", "string a = 1; string b = 2;", "oneof x { string a = 1; } string b = 2;"),
    *same("a new member", "oneof x { string a = 1; }", "oneof x { string a = 1; string b = 2; }"),
    *same(
        "a oneof of another name", "oneof x { string a = 1; int32 b = 2; }", "oneof y { int32 b = 2; string a = 1; }"
    ),
    *same("a new value", "enum E { X = 0; } E e = 1;", "enum E { X = 0; Y = 1; } E e = 1;"),
    *same("values in order", "enum E { X = 0; Y = 2; Z = 1; } E e = 1;", "enum E { X = 0; Z = 1; Y = 2; } E e = 1;"),
    *same("value renamed", "enum E { X = 0; Y = 1; } E e = 1;", "enum E { X = 0; Z = 1; } E e = 1;"),
    *same(
        "an alias goes",
        "enum E { option allow_alias = true; X = 0; Y = 1; Z = 1; } E e = 1;",
        "enum E { X = 0; Z = 1; } E e = 1;",
    ),
    *same("a map renamed", "map<string, int32> a = 1;", "map<string, int32> b = 1;"),
    *same("a recursive message", "message T { T t = 1; } T t = 1;", "message T { T t = 1; T u = 2; } T t = 1;"),
    *same("what is not used", "message U { string a = 1; } string a = 1;", "message U { int32 a = 2; } string a = 1;"),
    # -- the types of fields --------------------------------------------------------------------
    *everywhere("another wire type", "string a = 1;", "int32 a = 1;", "error field-type M.a (1)"),
    *everywhere("zigzag", "int32 a = 1;", "sint32 a = 1;", "error field-type M.a (1)"),
    *everywhere("fixed", "fixed32 a = 1;", "uint32 a = 1;", "error field-type M.a (1)"),
    *everywhere("fixed of another width", "fixed32 a = 1;", "fixed64 a = 1;", "error field-type M.a (1)"),
    *everywhere("float", "float a = 1;", "fixed32 a = 1;", "error field-type M.a (1)"),
    *everywhere("double", "float a = 1;", "double a = 1;", "error field-type M.a (1)"),
    *everywhere("message or number", "message N {} N a = 1;", "int32 a = 1;", "error field-type M.a (1)"),
    *everywhere("message or text", "message N {} N a = 1;", "string a = 1;", "error field-type M.a (1)"),
    *everywhere("signs", "int32 a = 1;", "uint32 a = 1;", "warning field-type M.a (1)"),
    *everywhere("fixed signs", "fixed64 a = 1;", "sfixed64 a = 1;", "warning field-type M.a (1)"),
    *both("wider", "int32 a = 1;", "int64 a = 1;", response="warning field-type M.a (1)"),
    *both("narrower", "uint64 a = 1;", "uint32 a = 1;", request="warning field-type M.a (1)"),
    *both("wider zigzag", "sint32 a = 1;", "sint64 a = 1;", response="warning field-type M.a (1)"),
    *both("wider, signed", "uint32 a = 1;", "int64 a = 1;", response="warning field-type M.a (1)"),
    *both("from bool", "bool a = 1;", "uint64 a = 1;", response="warning field-type M.a (1)"),
    *both("to bool", "int32 a = 1;", "bool a = 1;", request="warning field-type M.a (1)"),
    *both("to bytes", "string a = 1;", "bytes a = 1;", response="error field-type M.a (1)"),
    *both("to string", "bytes a = 1;", "string a = 1;", request="error field-type M.a (1)"),
    *both("enum to number", "enum E { X = 0; } E a = 1;", "int32 a = 1;", response="warning field-type M.a (1)"),
    *both("number to enum", "int32 a = 1;", "enum E { X = 0; } E a = 1;", request="warning field-type M.a (1)"),
    *both(
        "message to bytes",
        "message N {} N a = 1;",
        "bytes a = 1;",
        "warning field-type M.a (1)",
        "error field-type M.a (1)",
    ),
    *everywhere(
        "another message that is the same",
        "message N { string x = 1; N n = 2; } N a = 1;",
        "message O { string y = 1; O n = 2; } O a = 1;",
        "warning field-type M.a (1)",
    ),
    *everywhere(
        "another message that is not",
        "message N { string x = 1; } N a = 1;",
        "message O { int32 x = 1; } O a = 1;",
        "error field-type M.a (1)",
    ),
    *everywhere(
        "another message that is not, deep inside",
        "message I { int32 x = 1; } message N { repeated I x = 1; } map<string, N> a = 1;",
        "message I { bool x = 1; } message J { float x = 1; } message O { repeated J x = 1; } map<string, O> a = 1;",
        "error field-type M.a (1) value",
    ),
    *everywhere(
        "another enum that is the same",
        "enum E { X = 0; } E a = 1;",
        "enum F { Z = 0; Y = 1; } F a = 1;",
        "warning field-type M.a (1)",
    ),
    *everywhere(
        "another enum that is not",
        "enum E { X = 0; Y = 1; } E a = 1;",
        "enum F { Z = 0; } F a = 1;",
        "error field-type M.a (1)",
    ),
    *everywhere(
        "of an inner message",
        "message N { string x = 1; } repeated N a = 1;",
        "message N { int64 x = 1; } repeated N a = 1;",
        "error field-type M.N.x (1)",
    ),
    # -- maps -----------------------------------------------------------------------------------
    *everywhere("a key", "map<string, A> a = 1;", "map<int32, A> a = 1;", "error field-type M.a (1) key"),
    *everywhere("a value", "map<string, int32> a = 1;", "map<string, string> a = 1;", "error field-type M.a (1) value"),
    *everywhere(
        "a message in a map",
        "message N { string x = 1; } map<string, N> a = 1;",
        "message N { bool x = 1; } map<string, N> a = 1;",
        "error field-type M.N.x (1)",
    ),
    *everywhere(
        "a list of pairs into a map",
        "message P { string key = 1; int32 value = 2; } repeated P a = 1;",
        "map<string, int32> a = 1;",
        "warning field-type M.a (1)",
    ),
    # -- one or many ----------------------------------------------------------------------------
    *both("many texts", "string a = 1;", "repeated string a = 1;", response="warning field-repeated M.a (1)"),
    *both("one text", "repeated bytes a = 1;", "bytes a = 1;", request="warning field-repeated M.a (1)"),
    *both(
        "many messages",
        "message N {} N a = 1;",
        "message N {} repeated N a = 1;",
        response="warning field-repeated M.a (1)",
    ),
    *both("many numbers", "int32 a = 1;", "repeated int32 a = 1;", response="error field-repeated M.a (1)"),
    *both("one number", "repeated float a = 1;", "float a = 1;", request="error field-repeated M.a (1)"),
    *both(
        "one of another type",
        "repeated int32 a = 1;",
        "int64 a = 1;",
        "error field-type M.a (1)",
        "warning field-type M.a (1)",
    ),
    # -- fields that go or move -----------------------------------------------------------------
    *everywhere("removed", "string a = 1; string b = 2;", "string b = 2;", "error field-removed M.a (1)"),
    *everywhere("its name is reserved only", "string a = 1;", 'reserved "a";', "error field-removed M.a (1)"),
    *everywhere("its number is reserved", "string a = 5;", "reserved 1, 4 to max;", "warning field-removed M.a (5)"),
    *everywhere("it moves", "string a = 1;", "reserved 1; string a = 2;", "error field-number M.a (1)"),
    *everywhere(
        "two change places",
        "string a = 1; int32 b = 2;",
        "int32 b = 1; string a = 2;",
        "error field-number M.a (1)\nerror field-number M.b (2)",
    ),
    *everywhere(
        "its number is taken",
        "string a = 1;",
        "int32 b = 1; string a = 2;",
        "error field-number M.a (1)",
    ),
    *everywhere("a reserved number", "reserved 1;", "string a = 1;", "warning field-number-reserved M.a (1)"),
    *everywhere("no longer reserved", "reserved 1; string a = 2;", "string a = 2;", "warning reserved-removed M"),
    *everywhere(
        "fewer are reserved",
        "reserved 1, 4 to max; string a = 2;",
        "reserved 4, 6 to max; string a = 2; string b = 1;",
        "warning field-number-reserved M.b (1)\nwarning reserved-removed M",
    ),
    *same("reserved in other words", "reserved 4 to 6;", "reserved 4, 5; reserved 6, 7;"),
    # -- oneofs ---------------------------------------------------------------------------------
    *both(
        "two into a new oneof",
        "string a = 1; string b = 2;",
        "oneof x { string a = 1; string b = 2; }",
        request="error field-oneof M.x",
    ),
    *both(
        "optional ones into a oneof",
        "optional string a = 1; optional string b = 2;",
        "oneof x { string a = 1; string b = 2; }",
        request="error field-oneof M.x",
    ),
    *both(
        "into an old oneof",
        "oneof x { string a = 1; string b = 2; } string c = 3;",
        "oneof x { string a = 1; string b = 2; string c = 3; }",
        request="error field-oneof M.x",
    ),
    *both(
        "two oneofs into one",
        "oneof x { string a = 1; } oneof y { string b = 2; }",
        "oneof x { string a = 1; string b = 2; }",
        request="error field-oneof M.x",
    ),
    *both(
        "out of a oneof",
        "oneof x { string a = 1; string b = 2; }",
        "oneof x { string a = 1; } string b = 2;",
        response="error field-oneof M.x",
    ),
    # -- enums ----------------------------------------------------------------------------------
    *everywhere(
        "a value goes",
        "enum E { X = 0; Y = 1; } E e = 1;",
        "enum E { X = 0; } E e = 1;",
        "error enum-value-removed M.E.Y (1)",
    ),
    *both(
        "a value goes, reserved",
        "enum E { X = 0; Y = 1; } repeated E e = 1;",
        "enum E { X = 0; reserved 1; } repeated E e = 1;",
        request="warning enum-value-removed M.E.Y (1)",
    ),
    *everywhere(
        "a reserved number of an enum",
        "enum E { X = 0; reserved 1 to 3; } E e = 1;",
        "enum E { X = 0; Y = 2; reserved 1; } E e = 1;",
        "warning enum-number-reserved M.E.Y (2)\nwarning reserved-removed M.E",
    ),
    *everywhere(
        "a value moves",
        "enum E { X = 0; Y = 1; } E e = 1;",
        "enum E { X = 0; Y = 2; } E e = 1;",
        "error enum-value-number M.E.Y (1)",
    ),
    *everywhere(
        "values change places, in a map",
        "enum E { X = 0; Y = 1; Z = 2; } map<string, E> e = 1;",
        "enum E { X = 0; Z = 1; Y = 2; } map<string, E> e = 1;",
        "error enum-value-number M.E.Y (1)\nerror enum-value-number M.E.Z (2)",
    ),
]
SERVICES = [
    Case(
        "another RPC, service, message",
        f"{RPC} {EMPTY}",
        f"service S {{ rpc B(Q) returns (Q); rpc Do(Q) returns (A); }} service T {{}} message B {{}} {EMPTY}",
    ),
    Case(
        "deprecated RPC",
        f"{RPC} {EMPTY}",
        f"service S {{ rpc Do(Q) returns (A) {{ option deprecated = true; }} }} {EMPTY}",
    ),
    Case(
        "service renamed",
        f"{RPC} {EMPTY}",
        f"service T {{ rpc Do(Q) returns (A); }} {EMPTY}",
        ("error service-removed p.S",),
    ),
    Case("service gone", f"{RPC} service T {{}} {EMPTY}", f"service T {{}} {EMPTY}", ("error service-removed p.S",)),
    Case(
        "RPC renamed",
        f"{RPC} {EMPTY}",
        f"service S {{ rpc do(Q) returns (A); }} {EMPTY}",
        ("error rpc-removed p.S.Do",),
    ),
    Case("RPC gone", f"{RPC} {EMPTY}", f"service S {{}} {EMPTY}", ("error rpc-removed p.S.Do",)),
    *(
        Case(
            f"{was} to {now}",
            f"service S {{ rpc Do({was}); }} {EMPTY}",
            f"service S {{ rpc Do({now}); }} {EMPTY}",
            ("error rpc-cardinality p.S.Do",),
        )
        for was, now in [
            ("Q) returns (A", "Q) returns (stream A"),
            ("Q) returns (A", "stream Q) returns (A"),
            ("stream Q) returns (stream A", "Q) returns (stream A"),
            ("stream Q) returns (stream A", "stream Q) returns (A"),
        ]
    ),
    Case(
        "request and response of other names",
        f"{RPC} {EMPTY}",
        "service S { rpc Do(R) returns (B); } message R { string new = 1; } message B {}",
        ("warning rpc-request-type p.S.Do", "warning rpc-response-type p.S.Do"),
    ),
    Case(
        "another request",
        f"{RPC} message Q {{ string a = 1; }} message A {{}}",
        "service S { rpc Do(A) returns (A); } message A {}",
        ("error rpc-request-type p.S.Do",),
    ),
    Case(
        "another response",
        f"{RPC} message Q {{}} message A {{ message N {{ bool x = 1; }} N n = 1; }}",
        "service S { rpc Do(Q) returns (B); } message Q {} message B { message N { string x = 1; } N n = 1; }",
        ("error rpc-response-type p.S.Do",),
    ),
    Case(
        "a promise less",
        f"service S {{ rpc Do(Q) returns (A) {{ option idempotency_level = IDEMPOTENT; }} }} {EMPTY}",
        f"{RPC} {EMPTY}",
        ("warning rpc-idempotency p.S.Do",),
    ),
    Case(
        "a promise more",
        f"{RPC} {EMPTY}",
        f"service S {{ rpc Do(Q) returns (A) {{ option idempotency_level = NO_SIDE_EFFECTS; }} }} {EMPTY}",
    ),
    Case(
        "of a message in both directions",
        "service S { rpc Do(Q) returns (Q); } message Q { int32 a = 1; int64 b = 2; }",
        "service S { rpc Do(Q) returns (Q); } message Q { int64 a = 1; int32 b = 2; }",
        ("warning field-type p.Q.a (1)", "warning field-type p.Q.b (2)"),
    ),
]
JSON = [
    Case(name, *(f"{RPC} message Q {{ {fields} }} message A {{}}" for fields in (old, new)), expected, json=True)
    for name, old, new, expected in (
        ("JSON: same names", "string a_b = 1;", "string a_b = 1 [json_name = 'aB'];", ()),
        ("JSON: a field", "string a = 1;", "string b = 1;", ("warning field-json-name p.Q.a (1)",)),
        (
            "JSON: a json_name",
            "string a = 1;",
            "string a = 1 [json_name = 'x'];",
            ("warning field-json-name p.Q.a (1)",),
        ),
        (
            "JSON: a value",
            "enum E { X = 0; Y = 1; } E e = 1;",
            "enum E { X = 0; Z = 1; } E e = 1;",
            ("warning enum-value-name p.Q.E.Y (1)",),
        ),
    )
]
JSON += [
    Case(
        "JSON: a wider number",
        f"{RPC} message Q {{ int32 a = 1; }} message A {{}}",
        f"{RPC} message Q {{ int64 a = 1; }} message A {{}}",
        ("warning field-json-type p.Q.a (1)",),
        json=True,
    ),
]


def http(name: str, old: str, new: str, *expected: str, fields: str = "string a = 1; string b = 2;") -> Case:
    """Return a change of an RPC's HTTP rule."""
    texts = [
        'import "google/api/annotations.proto"; service S { rpc Do(Q) returns (A) '
        f"{{ {f'option (google.api.http) = {{ {rule} }};' if rule else ''} }} }} "
        f"message Q {{ {fields} }} message A {{ {fields} }}"
        for rule in (old, new)
    ]
    return Case(f"HTTP: {name}", *texts, expected)


HTTP = [
    http("the same", 'get: "/v1/{a}"', 'get: "/v1/{a}"'),
    http("a new route", 'get: "/v1/{a}"', 'get: "/v1/{a}" additional_bindings { post: "/v1" body: "*" }'),
    http("another order", 'get: "/a" additional_bindings { get: "/b" }', 'get: "/b" additional_bindings { get: "/a" }'),
    http("the first one", "", 'get: "/v1/{a}"'),
    http("gone", 'get: "/v1/{a}"', "", "error http-route p.S.Do"),
    http("another path", 'get: "/v1/{a}"', 'get: "/v2/{a}"', "error http-route p.S.Do"),
    http("another verb", 'put: "/v1/{a}"', 'patch: "/v1/{a}"', "error http-route p.S.Do"),
    http("another pattern", 'get: "/v1/{a=x/*}"', 'get: "/v1/{a=y/*}"', "error http-route p.S.Do"),
    http("another variable", 'get: "/v1/{a}"', 'get: "/v1/{b}"', "error http-route p.S.Do"),
    http("a binding goes", 'get: "/a" additional_bindings { get: "/b" }', 'get: "/a"', "error http-route p.S.Do"),
    http("a pattern of its own kind", 'custom { kind: "HEAD" path: "/a" }', 'get: "/a"', "error http-route p.S.Do"),
    http("another body", 'post: "/v1" body: "*"', 'post: "/v1" body: "a"', "error http-body p.S.Do"),
    http("no body", 'post: "/v1" body: "b"', 'post: "/v1"', "error http-body p.S.Do"),
    http("another response", 'get: "/v1"', 'get: "/v1" response_body: "a"', "error http-body p.S.Do"),
    Case(
        "HTTP: a name in JSON",
        *(
            'import "google/api/annotations.proto"; service S { rpc Do(Q) returns (A) { option (google.api.http) = '
            f'{{ get: "/a" }}; }} }} enum E {{ {value} = 0; }} message Q {{ {name} n = 1; E e = 2; }} message A {{}}'
            for value, name in (("X", "string a = 3; int32"), ("Y", "string b = 3; int64"))
        ),
        (
            "error field-json-name p.Q.a (3)",
            "error field-json-type p.Q.n (1)",
            "error enum-value-name p.E.X (0)",
        ),
    ),
]


def rules(name: str, old: str, new: str, stricter: str = "", kind: str = "string") -> tuple[Case, Case]:
    """Return a change of a field's rules as two cases: in the request, and in the response, where none is reported."""

    def text(message: str, other: str, of: str) -> str:
        options = ", ".join(f"(buf.validate.field).{each}" for each in of.split("; ") if each)
        field = f"{kind} a = 1 {f'[{options}]' if options else ''};"
        return f'import "buf/validate/validate.proto"; {RPC} message {message} {{ {field} }} message {other} {{}}'

    expected = ("error validation-stricter p.Q.a (1)",) if stricter else ()
    return (
        Case(f"rules: {name}, request", text("Q", "A", old), text("Q", "A", new), expected),
        Case(f"rules: {name}, response", text("A", "Q", old), text("A", "Q", new)),
    )


_IMPORT = 'import "buf/validate/validate.proto";'
RULES = [
    *rules("the same", "string.min_len = 1", "string.min_len = 1"),
    *rules("a new one", "", "string.min_len = 1", "yes"),
    *rules("one goes", "string.min_len = 1", ""),
    *rules("longer", "string.min_len = 1", "string.min_len = 2", "yes"),
    *rules("not as long", "string.min_len = 2", "string.min_len = 1"),
    *rules("shorter", "string.max_len = 9", "string.max_len = 8", "yes"),
    *rules("not as short", "string.max_len = 8", "string.max_len = 9"),
    *rules("a format", "", "string.email = true", "yes"),
    *rules("not a format", "", "string.email = false"),
    *rules("another pattern", 'string.pattern = "a"', 'string.pattern = "b"', "yes"),
    *rules("fewer choices", 'string = {in: ["a", "b"]}', 'string = {in: ["a"]}', "yes"),
    *rules("more choices", 'string = {in: ["a"]}', 'string = {in: ["b", "a"]}'),
    *rules("more exceptions", 'string = {not_in: ["a"]}', 'string = {not_in: ["a", "b"]}', "yes"),
    *rules("fewer exceptions", 'string = {not_in: ["a", "b"]}', 'string = {not_in: ["b"]}'),
    *rules("required", "", "required = true", "yes"),
    *rules("no longer ignored", "string.len = 3; ignore = IGNORE_IF_ZERO_VALUE", "string.len = 3", "yes"),
    *rules("ignored", "string.len = 3", "string.len = 3; ignore = IGNORE_ALWAYS"),
    *rules("a bound", "int32.gte = 1", "int32.gt = 1", "yes", kind="int32"),
    *rules("a wider bound", "int32.gt = 1", "int32.gte = 1", kind="int32"),
    *rules(
        "of elements",
        "repeated.items.string.min_len = 1",
        "repeated.items.string.min_len = 2",
        "yes",
        "repeated string",
    ),
    *rules("of keys", "", "map.keys.string.min_len = 2", "yes", "map<string, int32>"),
    *rules("an example", "", 'string = {example: ["a"]}'),
    Case(
        "rules: a new field",
        f"{_IMPORT} {RPC} message Q {{ string a = 1; }} message A {{}}",
        f"{_IMPORT} {RPC} message Q {{ string a = 1; "
        "string b = 2 [(buf.validate.field).required = true]; "
        "string c = 3 [(buf.validate.field).string.min_len = 1]; "
        "optional string d = 4 [(buf.validate.field).string.min_len = 1]; "
        "string e = 5 [(buf.validate.field).string.max_len = 1]; "
        'string f = 6 [(buf.validate.field).string.pattern = "^a*$"]; '
        'string g = 7 [(buf.validate.field).string.pattern = "^a+$"]; '
        "int32 h = 8 [(buf.validate.field).int32.gte = 0]; "
        "string i = 9 [(buf.validate.field).string.min_len = 1, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE]; "
        "} message A {}",
        tuple(f"error validation-stricter p.Q.{name}" for name in ("b (2)", "c (3)", "g (7)")),
    ),
    Case(
        "rules: of a message",
        f"{_IMPORT} {RPC} message Q {{ string a = 1; oneof k {{ string b = 2; }} }} message A {{}}",
        f"{_IMPORT} {RPC} message Q {{ "
        'option (buf.validate.message).cel = {id: "x", expression: "true"}; '
        "string a = 1; oneof k { option (buf.validate.oneof).required = true; string b = 2; } } message A {}",
        ("error validation-stricter p.Q.k", "error validation-stricter p.Q"),
    ),
]
CASES = [*FIELDS, *SERVICES, *JSON, *HTTP, *RULES]

_TWO = "syntax = 'proto2'; package p; service S { rpc Do(Q) returns (A); } "
#: Whole files in other syntaxes.
FILES = [
    Case(
        "required, new",
        f"{_TWO} message Q {{}} message A {{}}",
        f"{_TWO} message Q {{ required string a = 1; }} message A {{ required string a = 1; }}",
        ("error field-required p.Q.a (1)",),
    ),
    Case(
        "required from now on",
        f"{_TWO} message Q {{ optional string a = 1; }} message A {{ optional string a = 1; }}",
        f"{_TWO} message Q {{ required string a = 1; }} message A {{ required string a = 1; }}",
        ("error field-required p.Q.a (1)",),
    ),
    Case(
        "no longer required",
        f"{_TWO} message Q {{ required string a = 1; }} message A {{ required string a = 1; }}",
        f"{_TWO} message Q {{ optional string a = 1; }} message A {{ optional string a = 1; }}",
        ("error field-required p.A.a (1)",),
    ),
    Case(
        "required, gone",
        f"{_TWO} message Q {{ required string a = 1; }} message A {{ required string a = 1; }}",
        f"{_TWO} message Q {{ reserved 1; }} message A {{ reserved 1; }}",
        ("warning field-removed p.Q.a (1)", "error field-required p.A.a (1)"),
    ),
    Case(
        "a default",
        f"{_TWO} message Q {{ optional int32 a = 1; optional bool b = 2 [default = true]; }} message A {{}}",
        f"{_TWO} message Q {{ optional int32 a = 1 [default = 3]; optional bool b = 2 [default = true]; }} "
        "message A {}",
        ("warning field-default p.Q.a (1)",),
    ),
    Case(
        "a group",
        f"{_TWO} message Q {{ optional group G = 1 {{ optional string a = 1; }} }} message A {{}}",
        f"{_TWO} message Q {{ optional group G = 1 {{ optional int32 a = 1; }} }} message A {{}}",
        ("error field-type p.Q.G.a (1)",),
    ),
    Case(
        "a group into a message",
        f"{_TWO} message Q {{ optional group G = 1 {{ }} }} message A {{}}",
        f"{_TWO} message Q {{ message G {{ }} optional G g = 1; }} message A {{}}",
        ("error field-type p.Q.g (1)",),
    ),
    Case(
        "an extension",
        f"{_TWO} message Q {{ extensions 10 to 20; }} message A {{}} extend Q {{ optional string x = 10; }}",
        f"{_TWO} message Q {{ extensions 10 to 20; }} message A {{}}",
    ),
    Case(
        "proto2 to proto3",
        f"{_TWO} message Q {{ optional string a = 1; }} message A {{ repeated int32 b = 1; }}",
        "syntax = 'proto3'; package p; service S { rpc Do(Q) returns (A); } message Q { string a = 1; } "
        "message A { repeated int32 b = 1; }",
    ),
    *(
        Case(
            f"a new value of a closed enum, {side}",
            *(f"{_TWO} enum E {{ X = 0; {more} }} {messages}" for more in ("", "Y = 1;")),
            expected,
        )
        for side, messages, expected in [
            ("request", "message Q { optional E e = 1; } message A {}", ()),
            ("response", "message Q {} message A { optional E e = 1; }", ("warning enum-value-added p.E.Y (1)",)),
        ]
    ),
    Case(
        "a closed enum that opens",
        f"{_TWO} enum E {{ X = 0; }} message Q {{ optional E e = 1; }} message A {{}}",
        "syntax = 'proto3'; package p; service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E e = 1; } "
        "message A {}",
        ("warning enum-closed p.E",),
    ),
    Case(
        "editions",
        "edition = '2023'; package p; service S { rpc Do(Q) returns (A); } "
        "message Q { Q q = 1; string a = 2; } message A {}",
        "edition = '2023'; package p; service S { rpc Do(Q) returns (A); } "
        "message Q { Q q = 1 [features.message_encoding = DELIMITED]; "
        "string a = 2 [features.field_presence = LEGACY_REQUIRED]; } message A {}",
        ("error field-type p.Q.q (1)", "error field-required p.Q.a (2)"),
    ),
]
