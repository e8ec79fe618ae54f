from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

BAD = """\
from sdk import grpc_deployment
from shop_pb2 import Order, Receipt
from shop_sdk import ShopBase


@grpc_deployment
class Counter(ShopBase):
    async def buy(self, request: Order) -> Receipt:
        return Receipt()
"""
COMPOSED = """\
from ray import serve
from shop_app import Counter
from sdk import grpc_deployment
from shop_sdk import ShopBase


@serve.deployment
class Ledger:
    def __init__(self, counters):
        self.counters = counters


@grpc_deployment
class Front(ShopBase):
    def __init__(self, ledger):
        self.ledger = ledger

    def Buy(self, request):
        return None


class Bare(ShopBase):
    def Buy(self, request):
        return None


app = Front.bind(Ledger.bind([Counter.options(expose=False).bind()]))
plain = Ledger.bind([])
more = Front.options(num_replicas=2)
number = 7
"""
FITS = "Counter: fits (shop_app.py:7)\n  shop.Shop (shop.proto:5)\n    ok rpc Buy(Order) returns (Receipt)\n"


@pytest.mark.parametrize("target", ["shop_app", "shop_app:Counter", "shop_app:app"])
def test_class_that_fits(sdk: Run, target: str) -> None:
    done = sdk("check", target)
    assert (done.returncode, done.stdout, done.stderr) == (0, FITS, "")


def test_problem_at_import(sdk: Run, project: Path) -> None:
    (project / "bad.py").write_text(BAD)
    done = sdk("check", "bad")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "Counter: 1 problem (bad.py:7)\n"
        "  Counter.Buy: the class calls it `buy`; the proto says `rpc Buy(Order) returns (Receipt)`"
        " (bad.py:8, shop.proto:7) → rename `buy` to `Buy`: the names must be identical [wrong-case]\n"
    )


def test_every_class_of_a_module_is_checked(sdk: Run, project: Path) -> None:
    more = BAD.partition("@grpc")[2].replace("Counter", "Other").replace("buy", "Bye")
    fits = BAD.partition("@grpc")[2].replace("Counter", "Right").replace("buy", "Buy")
    (project / "bad.py").write_text(f"{BAD}\n\n@grpc{more}\n\n@grpc{fits}\n\napp = Other.bind()\n")
    done = sdk("check", "bad")
    assert (done.returncode, done.stderr) == (1, "")
    assert [line for line in done.stdout.splitlines() if line[0] != " "] == [
        "Counter: 1 problem (bad.py:7)",
        "Other: 1 problem (bad.py:13)",
        "Right: fits (bad.py:19)",
    ]
    # On a cluster, the import fails at the first of them, whatever target is named here.
    assert sdk("check", "bad:Right").stdout.count("1 problem") == 2
    refused = subprocess.run([sys.executable, "-c", "import bad"], cwd=project, capture_output=True, text=True)
    assert refused.stderr.count("Counter does not fit its service: 1 problem") == 1


def test_problems_are_reported_even_if_the_import_fails_after_them(sdk: Run, project: Path) -> None:
    (project / "bad.py").write_text(f"{BAD}\n\nCounter.nothing()\n")
    done = sdk("check", "bad")
    assert done.returncode == 1
    assert "[wrong-case]" in done.stdout
    assert done.stderr.startswith("error: Module 'bad' can't be imported: AttributeError: type object 'Counter'")


def test_a_class_that_is_bound_without_the_decorator(sdk: Run, project: Path) -> None:
    (project / "bare.py").write_text(BAD.replace("@grpc_deployment\n", "") + "\n\napp = Counter.bind()\n")
    done = sdk("check", "bare")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "Counter: 1 problem\n"
        "  Counter: the class is not bound to its service (bare.py:6) → put @grpc_deployment above it [not-decorated]\n"
    )


def test_strict_reports_unannotated_methods(sdk: Run, project: Path) -> None:
    (project / "loose.py").write_text(BAD.replace("buy(self, request: Order) -> Receipt", "Buy(self, request)"))
    assert sdk("check", "loose").returncode == 0
    done = sdk("check", "loose", "--strict")
    assert done.returncode == 1
    assert "`Buy` does not annotate `request` and the response; the proto says" in done.stdout
    assert "[unannotated]" in done.stdout
    assert sdk("check", "shop_app", "--strict").returncode == 0


def test_application_with_several_deployments(sdk: Run, project: Path) -> None:
    (project / "composed.py").write_text(COMPOSED)
    done = sdk("check", "composed:app")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if "fits" in line] == [
        "Counter: fits (shop_app.py:7)",
        "Front: fits (composed.py:14)",
    ]
    assert "Front: fits" in sdk("check", "composed:more").stdout
    module = sdk("check", "composed").stdout
    assert module.count("fits") == 2


def test_targets_that_are_not_classes(sdk: Run, project: Path) -> None:
    (project / "composed.py").write_text(COMPOSED)
    (project / "empty.py").write_text("")
    bare = sdk("check", "composed:Bare")
    assert bare.returncode == 1
    assert "Bare: the class is not bound to its service (composed.py:22) → put @grpc_deployment above" in bare.stdout
    for target, said in {
        "composed:plain": "error: composed:plain: it has no gRPC service: Ledger is a plain Ray Serve deployment → "
        "derive the class from a generated base, and put @grpc_deployment above it in place of @serve.deployment\n",
        "composed:number": "error: composed:number is int; give a class, or the result of its `.bind()`\n",
        "empty": "error: Module 'empty' has no class that is decorated with @grpc_deployment\n",
    }.items():
        done = sdk("check", target)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_undecorated_class_is_named(sdk: Run, project: Path) -> None:
    (project / "bare.py").write_text(BAD.replace("@grpc_deployment\n", ""))
    done = sdk("check", "bare")
    assert done.returncode == 2
    assert done.stderr.endswith("decorated with @grpc_deployment; put it above Counter\n")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing\n", "ModuleNotFoundError: No module named 'nothing' (broken.py:1)"),
        ("import nothing.more\n", "ModuleNotFoundError: No module named 'nothing' (broken.py:1)"),
        ("from shop_sdk import Nothing\n", "ImportError: cannot import name 'Nothing' from 'shop_sdk' "),
        ("x = 1\n\ndef f():\n    return 1 / 0\n\nf()\n", "ZeroDivisionError: division by zero (broken.py:4)"),
        ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name "),
        ("def f(:\n", "SyntaxError: invalid syntax (broken.py:1)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (broken.py:2)"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one two (broken.py:1)"),
        ("class E(BaseException): ...\nraise E\n", "E (broken.py:2)"),
        (
            "class E(Exception):\n    def __str__(self):\n        return self.no\nraise E\n",
            "E: its __str__ raised AttributeError (broken.py:4)",
        ),
    ],
)
def test_module_that_fails(sdk: Run, project: Path, source: str, said: str) -> None:
    (project / "broken.py").write_text(source)
    done = sdk("check", "broken")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: Module 'broken' can't be imported: {said}")
    assert done.stderr.count("\n") == 1
    assert "broken.py:" in done.stderr


def test_a_module_that_fails_to_give_a_name(sdk: Run, project: Path) -> None:
    (project / "lazy.py").write_text("def __getattr__(name):\n    import nothing\n")
    done = sdk("check", "lazy:app")
    said = "Module 'lazy' fails to give 'app': ModuleNotFoundError: No module named 'nothing' (lazy.py:2)"
    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")
    assert sdk("check", "lazy").stderr == (
        "error: Module 'lazy' has no class that is decorated with @grpc_deployment\n"
    )


@pytest.mark.parametrize("wanted", ["--traceback", "SDK_TRACEBACK"])
def test_the_traceback_of_a_module_that_fails(sdk: Run, project: Path, wanted: str) -> None:
    (project / "broken.py").write_text("def fail():\n    return 1 / 0\n\nfail()\n")
    done = sdk("check", "broken", wanted) if wanted.startswith("-") else sdk("check", "broken", SDK_TRACEBACK="1")
    assert (done.returncode, done.stdout) == (1, "")
    first, module, *_, raised, error = done.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert module == f'  File "{project}/broken.py", line 4, in <module>'
    assert raised == "ZeroDivisionError: division by zero"
    assert error.startswith("error: Module 'broken' can't be imported: ZeroDivisionError")


def test_stale_generated_code_is_one_message(sdk: Run, project: Path) -> None:
    code = project / "shop_sdk.py"
    code.write_text(code.read_text().replace('proto_hash="', 'proto_hash="0'))
    done = sdk("check", "shop_app")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: The generated code of service shop.Shop is stale")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop_ap", "No module named 'shop_ap' in {here} or in the installed packages; did you mean 'shop_app'?"),
        ("package.app", "No module named 'package.app' in {here} or in the installed packages"),
        ("shop_app:Countr", "Module 'shop_app' has no 'Countr'; did you mean 'Counter'?"),
        ("shop_app:Counter.bnd", "'Counter' of module 'shop_app' has no 'bnd'; did you mean 'bind'?"),
        ("shop_app.py", "'shop_app.py' is a path; give the module as Python imports it: shop_app"),
        ("./shop/app.py:app", "'./shop/app.py:app' is a path; give the module as Python imports it: shop.app:app"),
        ("shop_app:", "'shop_app:' is not a module; give MODULE or MODULE:NAME, such as app:Greeter"),
        ("no-module", "'no-module' is not a module; give MODULE or MODULE:NAME, such as app:Greeter"),
    ],
)
def test_target_that_does_not_exist(sdk: Run, project: Path, target: str, said: str) -> None:
    done = sdk("check", target)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {said.format(here=project)}\n"


@pytest.mark.parametrize("name", ["sdk/__init__.py", "sdk.py"])
def test_a_module_that_hides_ours_is_refused(sdk: Run, project: Path, name: str) -> None:
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).touch()
    done = sdk("check", "shop_app")
    assert done.returncode == 2
    shown = str(project / name).removesuffix("__init__.py")
    assert done.stderr.startswith(f"error: {shown} hides the module 'sdk' of ray-grpc-sdk")
    assert "Traceback" not in done.stderr


def test_a_codegen_package_is_allowed(sdk: Run, project: Path) -> None:
    (project / "codegen").mkdir()
    (project / "codegen" / "__init__.py").touch()
    done = sdk("check", "shop_app")
    assert (done.returncode, done.stdout) == (0, FITS)
    assert done.stderr.startswith(f"warning: {project}/codegen/ hides the module 'codegen' of ray-grpc-sdk")
