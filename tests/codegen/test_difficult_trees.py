"""Trees of protos that protoc, a plugin or Python's import system has trouble with: right output, or one clear line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from codegen.sync import Options, update
from tests.support.project import PROTO, Sdk, content, message, outcome, put

SERVICE = "message Ask {{}} service Shop {{ rpc Get(Ask) returns ({answer}); }}\n"


def proto(package: str, rest: str = SERVICE.format(answer="Ask"), imports: str = "") -> str:
    return f'syntax = "proto3";\npackage {package};\n{imports}{rest}'


def loads(*modules: str) -> None:
    """Import generated modules in a separate interpreter, with the output folder on the path."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code, *modules], cwd="gen", check=True)


def test_the_root_of_a_proto_is_the_include_folder_that_holds_it(sdk: Sdk) -> None:
    shop = proto("shop", SERVICE.format(answer="common.Money"), 'import "common/money.proto";\n')
    put({"api/shop.proto": shop, "api/third_party/common/money.proto": message("money").replace("money", "common")})
    assert sdk("api", "-I", "api/third_party", "--out", "gen").returncode == 0
    assert "common/money_pb2.py" in content("gen")
    loads("shop_sdk")


def test_names_that_are_not_ascii(sdk: Sdk) -> None:
    put({"protos/ünï/größe.proto": proto("v"), "protos/greet.proto": PROTO})
    assert sdk("protos", "--out", "gen").returncode == 0
    assert {"ünï/größe_pb2.py", "ünï/größe_sdk.py", "ünï/größe_pb2.pyi"} <= content("gen").keys()
    loads("ünï.größe_sdk")


@pytest.mark.parametrize("name", ["shop's", "a\\b", "a\tb"])
def test_names_that_protoc_can_not_quote(sdk: Sdk, name: str) -> None:
    put({f"api/{name}.proto": proto("v")})
    assert outcome(sdk("api", "--out", "gen")) == (
        2,
        "",
        f"error: api/{name}.proto can't be compiled: protoc copies its name into strings of Python as it is; rename it "
        "without quotes, backslashes and control characters\n",
    )


@pytest.mark.parametrize("name", ["DESCRIPTOR", "_descriptor"])
def test_a_definition_that_breaks_the_module_of_protoc(sdk: Sdk, name: str) -> None:
    put({"api/a.proto": proto("v", f"enum {name} {{ ZERO = 0; }}")})
    assert outcome(sdk("api", "--out", "gen"))[::2] == (
        1,
        f"api/a.proto: {name} can't be imported: protoc's Python module has something else of this name; rename it\n"
        "error: 1 error in the protos\n",
    )


def test_names_that_python_mangles_in_a_class(sdk: Sdk) -> None:
    # An alias such as `__x_pb2` has another name within a class.
    names = ["__init__", "_", "__x"]
    put({f"api/{name}.proto": proto(f"v{number}") for number, name in enumerate(names)})
    assert outcome(sdk("api", "--out", "gen"))[::2] == (0, "")
    loads(*(f"{name}_sdk" for name in names))


def test_services_that_hide_what_the_module_of_grpc_uses(sdk: Sdk) -> None:
    names = ["staticmethod", "object", "grpc", "warnings", "NotImplementedError", "True"]
    rpc = "rpc Get(.v.Ask) returns (.v.Ask); rpc Put(stream .v.Ask) returns (stream .v.Ask);"
    put({"api/a.proto": proto("v", "message Ask {} " + "".join(f"service {name} {{ {rpc} }} " for name in names))})
    assert outcome(sdk("api", "--out", "gen"))[::2] == (0, "")
    code = (
        "import grpc, a_pb2_grpc as m\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "channel, server = grpc.insecure_channel('127.0.0.1:1'), grpc.server(ThreadPoolExecutor())\n"
        f"for name in {names!r}:\n"
        "    getattr(m, name + 'Stub')(channel)\n"
        "    getattr(m, f'add_{name}Servicer_to_server')(getattr(m, name + 'Servicer')(), server)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd="gen", check=True)


def test_definitions_with_the_names_of_the_classes_of_enums(sdk: Sdk) -> None:
    # In a stub, `enum Color` has the classes `_Color` and `Color`.
    kinds = "enum Kind { KIND = 0; } message _Kind { Kind kind = 1; } Kind one = 1; _Kind two = 2;"
    colors = "enum Color { RED = 0; } enum _Color { BLUE = 0; }"
    put({"api/a.proto": proto("v", f"{colors} message _Size {{ {kinds} }} enum Size {{ SMALL = 0; }}")})
    assert outcome(sdk("api", "--out", "gen"))[::2] == (0, "")
    stub = ast.parse(content("gen")["a_pb2.pyi"])
    scopes = [node for node in ast.walk(stub) if isinstance(node, ast.Module | ast.ClassDef)]
    for scope in scopes:
        names = [node.name for node in scope.body if isinstance(node, ast.ClassDef)]
        assert len(names) == len(set(names))
    text = content("gen")["a_pb2.pyi"].decode()
    assert "class Color(_Color_, metaclass=_ColorEnumTypeWrapper)" in text
    assert "RED: _Color_.ValueType" in text
    assert "class _Color(__Color, metaclass=__ColorEnumTypeWrapper)" in text
    assert "_EnumTypeWrapper[_Size._Kind_.ValueType]" in text


@pytest.mark.parametrize("name", ["-x", "--python_out", "@x"])
def test_names_that_are_options_of_protoc(sdk: Sdk, name: str) -> None:
    put({f"api/{name}.proto": proto("v")})
    assert outcome(sdk("api", "--out", "gen"))[::2] == (0, "")
    assert len(content("gen")) == 5


def test_comments_that_are_not_utf8_or_have_quotes(sdk: Sdk) -> None:
    text = proto("v").replace("rpc", "// caf\x00 du monde\nrpc").encode().replace(b"\0", b"\xe9")
    # mypy-protobuf warns, without a name, of a comment of something deprecated that Python can not read as a string.
    rpcs = [
        f"// {comment}\nrpc R{n}(Hello) returns (Hello) {{ option deprecated = true; }}\n"
        for n, comment in enumerate(('""""', r"\d\\e\n"))
    ]
    deprecated = f"message Hello {{}} service S {{\n{''.join(rpcs)}}}\n"
    put({"protos/a.proto": proto("a", deprecated)})
    Path("protos/l.proto").write_bytes(text)
    assert outcome(sdk("protos", "--out", "gen"))[::2] == (0, "")
    for name in ("l_sdk.py", "l_pb2_grpc.py", "l_pb2_grpc.pyi"):
        assert "caf\N{REPLACEMENT CHARACTER} du monde" in content("gen")[name].decode()
    assert r'@_deprecated("""\\d\\e\n""")' in content("gen")["a_pb2_grpc.pyi"].decode()
    ast.parse(content("gen")["a_pb2_grpc.pyi"])  # an escape that Python does not know is a warning
    loads("l_sdk", "l_pb2_grpc")
    # A single proto, of which both plugins get the whole request.
    assert outcome(sdk("protos/l.proto", "--out", "alone"))[::2] == (0, "")
    assert content("alone")["l_pb2_grpc.pyi"] == content("gen")["l_pb2_grpc.pyi"]


# 1154 is a message, as which the text can't be read.
@pytest.mark.parametrize("number", [1151, 1154])
def test_a_number_of_mypy_protobufs_options_that_is_the_users(project: Path, number: int) -> None:
    imports = 'import "google/protobuf/descriptor.proto";\n'
    option = f"extend google.protobuf.FieldOptions {{ string of = {number}; }}\n"
    put({"protos/ext.proto": proto("ext", option + 'message A { string a = 1 [(of) = "name"]; }\n', imports)})
    for out in ("gen", "again"):  # in a process that has mypy-protobuf's options, too
        result = update(Options((Path("protos"),), Path(out)))
        assert (len(result.missing), result.warnings) == (9, ())
        assert b"    a: _builtins.str\n" in content(out)["ext_pb2.pyi"]


def test_a_proto_that_mypy_protobuf_cannot_read_ends_no_run(sdk: Sdk) -> None:
    # mypy-protobuf's own option, with a value that it refuses.
    imports = 'import "mypy_protobuf/extensions.proto";\n'
    own = (
        'syntax = "proto3";\npackage mypy_protobuf;\nimport "google/protobuf/descriptor.proto";\n'
        "extend google.protobuf.FieldOptions { string casttype = 1151; }\n"
    )
    fields = 'message Ask { string a = 1 [(mypy_protobuf.casttype) = "wrong"]; }\n'
    put(
        {
            "include/mypy_protobuf/extensions.proto": own,
            "protos/bad.proto": proto("bad", fields + "service Bad { rpc Get(Ask) returns (Ask); }\n", imports),
        }
    )
    done = sdk("protos", "-I", "include", "--out", "gen")
    assert done.returncode == 0
    (warning,) = (line for line in done.stderr.splitlines() if "its _pb2 module" in line)
    assert warning.startswith("protos/bad.proto: warning: its _pb2 module has no types, because mypy-protobuf failed: ")
    assert "Traceback" not in done.stderr
    assert b"__getattr__" in content("gen")["bad_pb2.pyi"]
    assert b"Hello" in content("gen")["greet_pb2.pyi"]


@pytest.mark.parametrize(
    ("kind", "default", "shown", "smallest"),
    [
        ("float", "1e-45", "1.40129846e-45", "1.17549435e-38"),
        ("float", "-1.1754942e-38", "-1.17549421e-38", "1.17549435e-38"),
        ("double", "5e-324", "4.94065645841247e-324", "2.22507386e-308"),
    ],
)
def test_a_default_that_protobuf_refuses(sdk: Sdk, kind: str, default: str, shown: str, smallest: str) -> None:
    put(
        {
            "protos/a.proto": f'syntax = "proto2"; package a; message M {{ optional group G = 1 '
            f"{{ optional {kind} f = 1 [default = {default}]; }} }}"
        }
    )
    code, _, stderr = outcome(sdk("protos", "--out", "gen"))
    assert (code, stderr.splitlines()[0]) == (
        1,
        f"protos/a.proto: a.M.G.f can't be imported: protobuf refuses the default {shown}, which is closer to 0 than "
        f"{smallest}, the smallest normal number of its type; write 0 or a larger one",
    )


def test_defaults_at_the_ends_of_their_types(sdk: Sdk) -> None:
    defaults = "1.17549435e-38 -1.17549435e-38 3.4028235e38 1e-50 1e39 inf -inf nan -nan -0.0 16777217"
    doubles = "2.2250738585072014e-308 1.7976931348623157e308 1e-400 1e400 inf -inf nan -nan -0.0"
    fields = [("float", each) for each in defaults.split()] + [("double", each) for each in doubles.split()]
    lines = "".join(
        f"optional {kind} f{number} = {number} [default = {each}];\n" for number, (kind, each) in enumerate(fields, 1)
    )
    put(
        {
            "protos/ends.proto": f'syntax = "proto2"; package ends; message M {{ {lines} }} '
            "service S { rpc R(M) returns (M); }"
        }
    )
    assert outcome(sdk("protos", "--out", "gen"))[::2] == (0, "")
    loads("ends_sdk")


def test_extensions_named_like_keywords_in_the_scope_of_a_message(sdk: Sdk) -> None:
    put(
        {
            "protos/x.proto": 'syntax = "proto2";\npackage x;\nmessage Ask { extensions 1 to 9;\n'
            "  message In { extend Ask { optional string import = 1; optional In None = 2; } }\n"
            "  extend Ask { repeated int32 class = 3; } }\n"
        }
    )
    assert outcome(sdk("protos", "--out", "gen"))[::2] == (0, "")
    tree = ast.parse(content("gen")["x_pb2.pyi"])
    targets = [each.target for each in ast.walk(tree) if isinstance(each, ast.AnnAssign)]
    named = {target.id for target in targets if isinstance(target, ast.Name)}
    assert {"_r_import", "_r_None", "_r_class"} <= named


def test_a_message_named_like_a_module_that_its_stub_imports(sdk: Sdk) -> None:
    put(
        {
            "protos/r.proto": proto(
                "r", "message sys { int32 sys = 1; } service TypeChecking { rpc Do(sys) returns (sys); }"
            )
        }
    )
    sdk("protos", "--out", "gen")
    loads("r_sdk")
    stub = content("gen")["r_pb2.pyi"].decode()
    # mypy does not know the version by another name of `sys`.
    assert "version_info" not in stub
    assert "\nfrom typing_extensions import TypeAlias as _TypeAlias" in stub


def test_names_that_the_generated_module_uses(sdk: Sdk) -> None:
    # Each name of the module's imports, of Python, and of the methods and parameters that it writes.
    words = "Any Awaitable BoundAs Cardinality ClassVar Method MethodBinding NotImplementedError RequestStream "
    words += (
        "ResponseStream Service ServicerBase Shim TYPE_CHECKING annotations args google importlib kwargs names_pb2 "
    )
    words += "property request requests sdk self service staticmethod tuple type typing"
    names = words.split()
    messages = "".join(f"message {name} {{ string {name} = 1; }}\n" for name in names)
    services = "".join(
        f"service {name}_ {{ rpc {name}(stream .names.{name}) returns (stream .names.{name}); }}\n" for name in names
    )
    uses = "".join(f"rpc {name}(.names.{name}) returns (.names.{name}); " for name in names)
    put(
        {
            "protos/names.proto": proto("names", messages + services),
            "protos/uses.proto": proto("uses", f"service Uses {{ {uses} }}", 'import public "names.proto";\n'),
        }
    )
    assert outcome(sdk("protos", "--out", "gen"))[::2] == (0, "")
    assert outcome(sdk("protos", "--out", "acme/gen", "--package", "acme.gen"))[::2] == (0, "")
    loads("names_sdk", "uses_sdk")


def test_a_copy_of_descriptor_proto_is_left_out(sdk: Sdk) -> None:
    # A copy from before editions; protoc aborts if it is to compile it.
    old = 'syntax = "proto2";\npackage google.protobuf;\nmessage FileDescriptorSet { optional string name = 1; }\n'
    put({"protos/google/protobuf/descriptor.proto": old})
    assert outcome(sdk("protos", "--out", "gen"))[::2] == (0, "")


def test_two_protos_of_one_module(sdk: Sdk) -> None:
    put({"api/my-shop.proto": proto("a"), "api/my_shop.proto": proto("b")})
    assert outcome(sdk("api", "--out", "gen")) == (
        2,
        "",
        "error: api/my-shop.proto and api/my_shop.proto both generate the module my_shop_pb2; rename or exclude one\n",
    )


def test_a_folder_that_a_module_hides(sdk: Sdk) -> None:
    put({"api/shop.proto": proto("a"), "api/shop_pb2/x.proto": proto("b")})
    assert outcome(sdk("api", "--out", "gen")) == (
        2,
        "",
        "error: api/shop.proto generates the module shop_pb2, so that Python can't import the folder of "
        "api/shop_pb2/x.proto; rename one of them\n",
    )


def test_folders_that_other_packages_hide(sdk: Sdk) -> None:
    put({f"api/{folder}/thing.proto": proto(folder.replace("/", ".")) for folder in ("types", "grpc", "google/mine")})
    assert outcome(sdk("api", "--out", "gen"))[2].splitlines() == [
        "gen/grpc: warning: an installed package has the module grpc, so that Python can't import grpc.thing_pb2; "
        "give --package",
        "gen/types: warning: the standard library has the module types, so that Python can't import types.thing_pb2; "
        "give --package",
    ]
    loads("google.mine.thing_sdk")  # `google` is a namespace package
    assert outcome(sdk("api", "--out", "acme/gen", "--package", "acme.gen"))[2] == ""


def test_an_import_that_is_neither_generated_nor_installed(sdk: Sdk) -> None:
    imports = 'import "rules/rules.proto";\nimport "google/protobuf/empty.proto";\nimport "google/rpc/status.proto";\n'
    rpc = "service S { rpc Get(rules.Rules) returns (google.protobuf.Empty); "
    rpc += "rpc Put(rules.Rules) returns (google.rpc.Status); }"
    status = 'syntax = "proto3";\npackage google.rpc;\nmessage Status {}\n'
    put(
        {
            "api/ex.proto": proto("ex", rpc, imports),
            "third/rules/rules.proto": message("rules"),
            "third/google/rpc/status.proto": status,
        }
    )
    warning = (
        "gen/ex_pb2.py: warning: it imports rules.rules_pb2, which is neither generated nor installed; give its proto "
        "to `sdk codegen`, or install the package that has it\n"
    )
    assert outcome(sdk("api", "-I", "third", "--out", "gen"))[::2] == (0, warning)
    assert outcome(sdk("api", "-I", "third", "--out", "gen", "--check"))[::2] == (0, warning)
    # In the folder since another run.
    assert outcome(sdk("third/rules", "-I", "third", "--out", "gen"))[::2] == (0, "")
    assert outcome(sdk("api", "-I", "third", "--out", "gen"))[::2] == (0, "")
