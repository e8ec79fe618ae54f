# ruff: noqa: E501  # each version is one line
"""Changes of a proto file that `buf breaking` was asked about, and what ours says of each with `--strict`.

`record_buf.py` asks buf, `buf_results.json` has its answers.
"""

from __future__ import annotations

from typing import NamedTuple

PROTO3 = 'syntax = "proto3"; package p; '
PROTO2 = 'syntax = "proto2"; package p; '
EDITION = 'edition = "2023"; package p; '


class Pair(NamedTuple):
    """Two versions of a file; ``ours`` has a line `severity rule path` for each effect."""

    name: str
    old: str
    new: str
    ours: tuple[str, ...] = ()


PAIRS = [
    Pair(
        "field gone",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string b = 2; } message A { string b = 2; }",
        ("error field-removed p.Q.a (1)", "error field-removed p.A.a (1)"),
    ),
    Pair(
        "field gone, number reserved",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { reserved 1; string b = 2; } message A { reserved 1; string b = 2; }",
        ("warning field-removed p.Q.a (1)", "warning field-removed p.A.a (1)"),
    ),
    Pair(
        "field gone, number and name reserved",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { reserved 1; reserved "a"; string b = 2; } message A { reserved 1; reserved "a"; string b = 2; }',
        ("warning field-removed p.Q.a (1)", "warning field-removed p.A.a (1)"),
    ),
    Pair(
        "field gone, name reserved",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { reserved "a"; string b = 2; } message A { reserved "a"; string b = 2; }',
        ("error field-removed p.Q.a (1)", "error field-removed p.A.a (1)"),
    ),
    Pair(
        "field renamed",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string b = 1; } message A { string b = 1; }",
        ("warning field-json-name p.Q.a (1)", "warning field-json-name p.A.a (1)"),
    ),
    Pair(
        "field renamed with the same JSON name",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a_b = 1; } message A { string a_b = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string aB = 1; } message A { string aB = 1; }",
        ("warning field-json-name p.Q.a_b (1)", "warning field-json-name p.A.a_b (1)"),
    ),
    Pair(
        "field renamed with json_name",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a_b = 1; } message A { string a_b = 1; }",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { string c = 1 [json_name = "aB"]; } message A { string c = 1 [json_name = "aB"]; }',
        ("warning field-json-name p.Q.a_b (1)", "warning field-json-name p.A.a_b (1)"),
    ),
    Pair(
        "json_name set",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { string a = 1 [json_name = "x"]; } message A { string a = 1 [json_name = "x"]; }',
        ("warning field-json-name p.Q.a (1)", "warning field-json-name p.A.a (1)"),
    ),
    Pair(
        "json_name gone",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { string a = 1 [json_name = "x"]; } message A { string a = 1 [json_name = "x"]; }',
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        ("warning field-json-name p.Q.a (1)", "warning field-json-name p.A.a (1)"),
    ),
    Pair(
        "field renumbered",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 2; } message A { string a = 2; }",
        ("error field-number p.Q.a (1)", "error field-number p.A.a (1)"),
    ),
    Pair(
        "fields swapped",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 2; string b = 1; } message A { string a = 2; string b = 1; }",
        (
            "error field-number p.Q.a (1)",
            "error field-number p.Q.b (2)",
            "error field-number p.A.a (1)",
            "error field-number p.A.b (2)",
        ),
    ),
    Pair(
        "string to bytes",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { bytes a = 1; } message A { bytes a = 1; }",
        ("warning field-json-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "bytes to string",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { bytes a = 1; } message A { bytes a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        ("error field-type p.Q.a (1)", "warning field-json-type p.A.a (1)"),
    ),
    Pair(
        "string to number",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "int32 to int64",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int64 a = 1; } message A { int64 a = 1; }",
        ("warning field-json-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "int64 to int32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int64 a = 1; } message A { int64 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-json-type p.A.a (1)"),
    ),
    Pair(
        "int32 to uint32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { uint32 a = 1; } message A { uint32 a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "int32 to sint32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { sint32 a = 1; } message A { sint32 a = 1; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "uint32 to bool",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { uint32 a = 1; } message A { uint32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { bool a = 1; } message A { bool a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-json-type p.A.a (1)"),
    ),
    Pair(
        "bool to int32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { bool a = 1; } message A { bool a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        ("warning field-json-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "fixed32 to sfixed32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { fixed32 a = 1; } message A { fixed32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { sfixed32 a = 1; } message A { sfixed32 a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "fixed64 to fixed32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { fixed64 a = 1; } message A { fixed64 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { fixed32 a = 1; } message A { fixed32 a = 1; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "float to double",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { float a = 1; } message A { float a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { double a = 1; } message A { double a = 1; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "double to string",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { double a = 1; } message A { double a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "enum to int32",
        PROTO3 + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E a = 1; } message A { E a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { int32 a = 1; } message A { int32 a = 1; }",
        ("warning field-json-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "int32 to enum",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { int32 a = 1; } message A { int32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E a = 1; } message A { E a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-json-type p.A.a (1)"),
    ),
    Pair(
        "enum to another enum",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } enum F { Y = 0; } message Q { E a = 1; } message A { E a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } enum F { Y = 0; } message Q { F a = 1; } message A { F a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "message to another message",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message N { string x = 1; } message Q { M a = 1; } message A { M a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message N { string x = 1; } message Q { N a = 1; } message A { N a = 1; }",
        ("warning field-type p.Q.a (1)", "warning field-type p.A.a (1)"),
    ),
    Pair(
        "message to bytes",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { M a = 1; } message A { M a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { bytes a = 1; } message A { bytes a = 1; }",
        ("warning field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "message to string",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { M a = 1; } message A { M a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { string a = 1; } message A { string a = 1; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "one to many texts",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { repeated string a = 1; } message A { repeated string a = 1; }",
        ("warning field-json-type p.Q.a (1)", "warning field-repeated p.A.a (1)"),
    ),
    Pair(
        "many texts to one",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { repeated string a = 1; } message A { repeated string a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        ("warning field-repeated p.Q.a (1)", "warning field-json-type p.A.a (1)"),
    ),
    Pair(
        "one to many numbers",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { repeated int32 a = 1; } message A { repeated int32 a = 1; }",
        ("warning field-json-type p.Q.a (1)", "error field-repeated p.A.a (1)"),
    ),
    Pair(
        "many messages to one",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { repeated M a = 1; } message A { repeated M a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { M a = 1; } message A { M a = 1; }",
        ("warning field-repeated p.Q.a (1)", "warning field-json-type p.A.a (1)"),
    ),
    Pair(
        "implicit to optional",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { optional int32 a = 1; } message A { optional int32 a = 1; }",
        (),
    ),
    Pair(
        "optional to implicit",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { optional int32 a = 1; } message A { optional int32 a = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { int32 a = 1; } message A { int32 a = 1; }",
        (),
    ),
    Pair(
        "map key",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { map<string, int32> a = 1; } message A { map<string, int32> a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { map<int32, int32> a = 1; } message A { map<int32, int32> a = 1; }",
        ("error field-type p.Q.a (1) key", "error field-type p.A.a (1) key"),
    ),
    Pair(
        "map value",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { map<string, int32> a = 1; } message A { map<string, int32> a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { map<string, string> a = 1; } message A { map<string, string> a = 1; }",
        ("error field-type p.Q.a (1) value", "error field-type p.A.a (1) value"),
    ),
    Pair(
        "map to list of pairs",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message P { string key = 1; int32 value = 2; } message Q { map<string, int32> a = 1; } message A { map<string, int32> a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message P { string key = 1; int32 value = 2; } message Q { repeated P a = 1; } message A { repeated P a = 1; }",
        (
            "warning field-type p.Q.a (1)",
            "warning field-json-type p.Q.a (1)",
            "warning field-type p.A.a (1)",
            "warning field-json-type p.A.a (1)",
        ),
    ),
    Pair(
        "map value to a wider number",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { map<string, int32> a = 1; } message A { map<string, int32> a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { map<string, int64> a = 1; } message A { map<string, int64> a = 1; }",
        ("warning field-json-type p.Q.a (1) value", "warning field-type p.A.a (1) value"),
    ),
    Pair(
        "into a new oneof",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { oneof x { string a = 1; string b = 2; } } message A { oneof x { string a = 1; string b = 2; } }",
        ("error field-oneof p.Q.x", "warning field-oneof p.A.a (1)", "warning field-oneof p.A.b (2)"),
    ),
    Pair(
        "one into a new oneof",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; string b = 2; } message A { string a = 1; string b = 2; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { oneof x { string a = 1; } string b = 2; } message A { oneof x { string a = 1; } string b = 2; }",
        ("warning field-oneof p.Q.a (1)", "warning field-oneof p.A.a (1)"),
    ),
    Pair(
        "out of a oneof",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { oneof x { string a = 1; string b = 2; } } message A { oneof x { string a = 1; string b = 2; } }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { oneof x { string a = 1; } string b = 2; } message A { oneof x { string a = 1; } string b = 2; }",
        ("warning field-oneof p.Q.b (2)", "error field-oneof p.A.x"),
    ),
    Pair(
        "another oneof",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { oneof x { string a = 1; string b = 2; } } message A { oneof x { string a = 1; string b = 2; } }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { oneof y { string a = 1; string b = 2; } } message A { oneof y { string a = 1; string b = 2; } }",
        (
            "warning field-oneof p.Q.a (1)",
            "warning field-oneof p.Q.b (2)",
            "warning field-oneof p.A.a (1)",
            "warning field-oneof p.A.b (2)",
        ),
    ),
    Pair(
        "reserved number freed",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { reserved 4 to 6; string a = 1; } message A { reserved 4 to 6; string a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { reserved 4; string a = 1; } message A { reserved 4; string a = 1; }",
        ("warning reserved-removed p.Q", "warning reserved-removed p.A"),
    ),
    Pair(
        "reserved name freed",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { reserved "x", "y"; string a = 1; } message A { reserved "x", "y"; string a = 1; }',
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } message Q { reserved "x"; string a = 1; } message A { reserved "x"; string a = 1; }',
        ("warning reserved-removed p.Q", "warning reserved-removed p.A"),
    ),
    Pair(
        "enum value gone",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q { E e = 1; } message A { E e = 1; }",
        PROTO3 + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E e = 1; } message A { E e = 1; }",
        ("error enum-value-removed p.E.Y (1)",),
    ),
    Pair(
        "enum value gone, number reserved",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved 1; } message Q { E e = 1; } message A { E e = 1; } ",
        ("warning enum-value-removed p.E.Y (1)",),
    ),
    Pair(
        "enum value gone, number reserved, in responses",
        PROTO3 + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q {  } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved 1; } message Q {  } message A { E e = 1; } ",
        ("warning enum-value-removed p.E.Y (1)",),
    ),
    Pair(
        "enum value gone, all reserved",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved 1; reserved "Y"; } message Q { E e = 1; } message A { E e = 1; } ',
        ("warning enum-value-removed p.E.Y (1)",),
    ),
    Pair(
        "enum value renamed",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Z = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        ("warning enum-value-name p.E.Y (1)",),
    ),
    Pair(
        "enum value renumbered",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 2; } message Q { E e = 1; } message A { E e = 1; } ",
        ("error enum-value-number p.E.Y (1)",),
    ),
    Pair(
        "enum alias gone",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { option allow_alias = true; X = 0; Y = 1; Z = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Z = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        ("warning enum-value-name p.E.Y (1)",),
    ),
    Pair(
        "reserved value freed",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved 2 to 4; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved 2; } message Q { E e = 1; } message A { E e = 1; } ",
        ("warning reserved-removed p.E",),
    ),
    Pair(
        "reserved value name freed",
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved "A", "B"; } message Q { E e = 1; } message A { E e = 1; } ',
        PROTO3
        + 'service S { rpc Do(Q) returns (A); } enum E { X = 0; reserved "A"; } message Q { E e = 1; } message A { E e = 1; } ',
        ("warning reserved-removed p.E",),
    ),
    Pair(
        "RPC to a stream of requests",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q {} message A {}",
        PROTO3 + "service S { rpc Do(stream Q) returns (A); } message Q {} message A {}",
        ("error rpc-cardinality p.S.Do",),
    ),
    Pair(
        "RPC to a stream of responses",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q {} message A {}",
        PROTO3 + "service S { rpc Do(Q) returns (stream A); } message Q {} message A {}",
        ("error rpc-cardinality p.S.Do",),
    ),
    Pair(
        "RPC with another request",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q {} message A {} message B {}",
        PROTO3 + "service S { rpc Do(B) returns (A); } message Q {} message A {} message B {}",
        ("warning rpc-request-type p.S.Do",),
    ),
    Pair(
        "RPC with another response",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q {} message A {} message B {}",
        PROTO3 + "service S { rpc Do(Q) returns (B); } message Q {} message A {} message B {}",
        ("warning rpc-response-type p.S.Do",),
    ),
    Pair(
        "RPC is idempotent now",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q {} message A {}",
        PROTO3
        + "service S { rpc Do(Q) returns (A) { option idempotency_level = IDEMPOTENT; } } message Q {} message A {}",
        ("warning rpc-idempotency p.S.Do",),
    ),
    Pair(
        "RPC is no longer idempotent",
        PROTO3
        + "service S { rpc Do(Q) returns (A) { option idempotency_level = NO_SIDE_EFFECTS; } } message Q {} message A {}",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q {} message A {}",
        ("warning rpc-idempotency p.S.Do",),
    ),
    Pair(
        "required, new",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1; } message A { optional string a = 1; }",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1; required string b = 2; } message A { optional string a = 1; required string b = 2; }",
        ("error field-required p.Q.b (2)", "warning field-required p.Q.b (2)", "warning field-required p.A.b (2)"),
    ),
    Pair(
        "required from now on",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1; } message A { optional string a = 1; }",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { required string a = 1; } message A { required string a = 1; }",
        ("error field-required p.Q.a (1)", "warning field-required p.A.a (1)"),
    ),
    Pair(
        "no longer required",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { required string a = 1; } message A { required string a = 1; }",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1; } message A { optional string a = 1; }",
        ("warning field-required p.Q.a (1)", "error field-required p.A.a (1)"),
    ),
    Pair(
        "required in responses, new",
        PROTO2 + "service S { rpc Do(Q) returns (A); } message Q {} message A {}",
        PROTO2 + "service S { rpc Do(Q) returns (A); } message Q {} message A { required string a = 1; }",
        ("warning field-required p.A.a (1)",),
    ),
    Pair(
        "no longer required in requests",
        PROTO2 + "service S { rpc Do(Q) returns (A); } message Q { required string a = 1; } message A {}",
        PROTO2 + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1; } message A {}",
        ("warning field-required p.Q.a (1)",),
    ),
    Pair(
        "default",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional int32 a = 1 [default = 1]; } message A { optional int32 a = 1 [default = 1]; }",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional int32 a = 1 [default = 2]; } message A { optional int32 a = 1 [default = 2]; }",
        ("warning field-default p.Q.a (1)", "warning field-default p.A.a (1)"),
    ),
    Pair(
        "default gone",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1 [default = 'x']; } message A { optional string a = 1 [default = 'x']; }",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional string a = 1; } message A { optional string a = 1; }",
        ("warning field-default p.Q.a (1)", "warning field-default p.A.a (1)"),
    ),
    Pair(
        "group to a message",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional group G = 1 { optional string a = 1; } } message A { optional group G = 1 { optional string a = 1; } }",
        PROTO2
        + "service S { rpc Do(Q) returns (A); } message Q { optional G g = 1; message G { optional string a = 1; } } message A { optional G g = 1; message G { optional string a = 1; } }",
        ("error field-type p.Q.g (1)", "error field-type p.A.g (1)"),
    ),
    Pair(
        "delimited from now on",
        EDITION
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { M a = 1; } message A { M a = 1; }",
        EDITION
        + "service S { rpc Do(Q) returns (A); } message M { string x = 1; } message Q { M a = 1 [features.message_encoding = DELIMITED]; } message A { M a = 1 [features.message_encoding = DELIMITED]; }",
        ("error field-type p.Q.a (1)", "error field-type p.A.a (1)"),
    ),
    Pair(
        "JSON format of a message",
        EDITION + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A {}",
        EDITION
        + "service S { rpc Do(Q) returns (A); } message Q { option features.json_format = LEGACY_BEST_EFFORT; string a = 1; } message A {}",
        ("warning json-format p.Q",),
    ),
    Pair(
        "JSON format of an enum",
        EDITION + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E e = 1; } message A {}",
        EDITION
        + "service S { rpc Do(Q) returns (A); } enum E { option features.json_format = LEGACY_BEST_EFFORT; X = 0; } message Q { E e = 1; } message A {}",
        ("warning json-format p.E",),
    ),
    Pair(
        "closed enum",
        EDITION + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E e = 1; } message A {}",
        EDITION
        + "service S { rpc Do(Q) returns (A); } enum E { option features.enum_type = CLOSED; X = 0; } message Q { E e = 1; } message A {}",
        ("warning enum-closed p.E",),
    ),
    Pair(
        "validated as UTF-8",
        EDITION
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1 [features.utf8_validation = NONE]; } message A { string a = 1 [features.utf8_validation = NONE]; }",
        EDITION + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        (),
    ),
    Pair(
        "deep inside",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message I { int32 x = 1; } message M { repeated I i = 1; } message Q { map<string, M> m = 1; } message A {}",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message I { int64 x = 1; } message M { repeated I i = 1; } message Q { map<string, M> m = 1; } message A {}",
        ("warning field-json-type p.I.x (1)",),
    ),
    Pair(
        "a new field",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; int32 b = 2; } message A { string a = 1; int32 b = 2; }",
        (),
    ),
    Pair(
        "another order",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; int32 b = 2; } message A { string a = 1; int32 b = 2; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { int32 b = 2; string a = 1; } message A { int32 b = 2; string a = 1; }",
        (),
    ),
    Pair(
        "deprecated",
        PROTO3 + "service S { rpc Do(Q) returns (A); } message Q { string a = 1; } message A { string a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { string a = 1 [deprecated = true]; } message A { string a = 1 [deprecated = true]; }",
        (),
    ),
    Pair(
        "unpacked",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { repeated int32 a = 1; } message A { repeated int32 a = 1; }",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } message Q { repeated int32 a = 1 [packed = false]; } message A { repeated int32 a = 1 [packed = false]; }",
        (),
    ),
    Pair(
        "a new value",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; } message Q { E e = 1; } message A { E e = 1; } ",
        PROTO3
        + "service S { rpc Do(Q) returns (A); } enum E { X = 0; Y = 1; } message Q { E e = 1; } message A { E e = 1; } ",
        (),
    ),
]
