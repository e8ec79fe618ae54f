"""Several targets, whole packages, and the formats of `sdk check`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sdk.cli.check.formats import as_github, as_json
from sdk.cli.check.report import CheckReport, ClassReport, TargetFailure, VersionComparison
from sdk.errors import Change, Problem

Run = Callable[..., "subprocess.CompletedProcess[str]"]

BAD = """\
from sdk import grpc_deployment
from shop_pb2 import Order, Receipt
from shop_sdk import ShopBase


@grpc_deployment
class {name}(ShopBase):
    async def buy(self, request: Order) -> Receipt:
        return Receipt()
"""
SAID = (
    "the class calls it `buy`; the proto says `rpc Buy(Order) returns (Receipt)`"
    " {} → rename `buy` to `Buy`: the names must be identical"
)
FITS = "Counter: fits (shop_app.py:7)\n  shop.Shop (shop.proto:5)\n    ok rpc Buy(Order) returns (Receipt)\n"


def test_several_targets_are_all_checked(sdk: Run, project: Path) -> None:
    (project / "one.py").write_text(BAD.format(name="One"))
    done = sdk("check", "one", "shop_app", "nothing", "shop_app:Counter", "one")
    assert done.returncode == 2
    assert done.stdout == (
        f"One: 1 problem (one.py:7)\n  One.buy: {SAID.format('(one.py:8, shop.proto:7)')} [wrong-case]\n{FITS}".replace(
            "One.buy", "One.Buy"
        )
    )
    assert done.stderr == f"error: No module named 'nothing' in {project} or in the installed packages\n"


def test_a_package_without_classes_is_checked_with_the_modules_below_it(sdk: Run, project: Path) -> None:
    package = project / "shops"
    (package / "more").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "more" / "__init__.py").write_text("")
    (package / "more" / "app.py").write_text((project / "shop_app.py").read_text())
    (package / "__main__.py").write_text("raise SystemExit('a program')")
    (package / "other_pb2.py").write_text("raise SystemExit('generated')")
    done = sdk("check", "shops")
    assert (done.returncode, done.stdout, done.stderr) == (0, FITS.replace("shop_app.py", "shops/more/app.py"), "")


def test_a_module_of_a_package_that_fails_hides_no_other(sdk: Run, project: Path) -> None:
    package = project / "shops"
    (package / "broken").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "broken" / "__init__.py").write_text("1 / 0\n")
    (package / "first.py").write_text(BAD.format(name="First"))
    (package / "last.py").write_text((project / "shop_app.py").read_text())
    done = sdk("check", "shops")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line[0] != " "] == [
        "First: 1 problem (shops/first.py:7)",
        "Counter: fits (shops/last.py:7)",
    ]
    assert done.stderr == (
        "error: Module 'shops.broken' can't be imported: ZeroDivisionError: division by zero"
        " (shops/broken/__init__.py:1)\n"
    )


def test_a_terminal_gets_a_tree_in_colours(sdk: Run, project: Path) -> None:
    (project / "one.py").write_text(BAD.format(name="One"))
    done = sdk("check", "shop_app", "one", FORCE_COLOR="1", TERM="xterm-256color", COLUMNS="100")
    assert done.returncode == 1
    assert "\x1b[1;32mCounter: fits\x1b[0m" in done.stdout
    assert "\x1b[32m✓ \x1b[0mrpc Buy(Order) returns (Receipt)" in done.stdout
    assert "└── " in done.stdout
    assert "\x1b[1;31mOne: 1 problem\x1b[0m" in done.stdout


def test_the_json_option_of_other_commands(sdk: Run) -> None:
    assert sdk("check", "shop_app", "--json").stdout == sdk("check", "shop_app", "--format", "json").stdout


def test_json(sdk: Run, project: Path) -> None:
    (project / "one.py").write_text(BAD.format(name="One"))
    done = sdk("check", "one", "shop_app", "nothing", "--format", "json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {
        "version": 1,
        "strict": False,
        "classes": [
            {
                "name": "One",
                "target": "one",
                "fits": False,
                "services": ["shop.Shop"],
                "unimplemented": [],
                "code": {"file": "one.py", "line": 7},
            },
            {
                "name": "Counter",
                "target": "shop_app",
                "fits": True,
                "services": ["shop.Shop"],
                "unimplemented": [],
                "code": {"file": "shop_app.py", "line": 7},
            },
        ],
        "problems": [
            {
                "rule": "wrong-case",
                "severity": "error",
                "class": "One",
                "rpc": "Buy",
                "message": "the class calls it `buy`; the proto says `rpc Buy(Order) returns (Receipt)`",
                "remedy": "rename `buy` to `Buy`: the names must be identical",
                "code": {"file": "one.py", "line": 8},
                "proto": {"file": "shop.proto", "line": 7},
            }
        ],
        "against": None,
        "written": [],
        "changed_protos": [],
        "notes": [],
        "failures": [
            {
                "target": "nothing",
                "message": f"No module named 'nothing' in {project} or in the installed packages",
            }
        ],
    }


def test_github(sdk: Run, project: Path) -> None:
    (project / "one.py").write_text(BAD.format(name="One"))
    done = sdk("check", "one", "--format", "github")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (f"::error file=one.py,line=8,title=wrong-case::One.Buy: {SAID.format('(shop.proto:7)')}\n")
    fits = sdk("check", "shop_app", "--format", "github", "--strict", GITHUB_WORKSPACE=str(project))
    assert (fits.returncode, fits.stdout, fits.stderr) == (0, "", "")


def report(*problems: Problem, comparison: VersionComparison | None = None) -> CheckReport:
    return CheckReport((ClassReport("A", "app", None, "", None, problems),), (), comparison, False)


def test_a_json_document_without_locations() -> None:
    document = as_json(
        report(Problem("no-service", "A", "m", "r"), Problem("interceptor", "A, interceptors[1]", "m", "r"))
    )
    assert document["problems"] == [
        {
            "rule": rule,
            "severity": "error",
            "class": "A",
            "rpc": None,
            "message": "m",
            "remedy": "r",
            "code": None,
            "proto": None,
        }
        for rule in ("no-service", "interceptor")
    ]


def test_a_json_document_of_a_comparison() -> None:
    change = Change("field-removed", "warning", "p.M.a (1)", "gone", "keep it", "string", "", "a/b.proto:3")
    document = as_json(report(comparison=VersionComparison("HOST:1", ("p.S",), (change,))))
    assert document["against"] == {
        "other": "HOST:1",
        "services": ["p.S"],
        "note": "",
        "changes": [
            {
                "rule": "field-removed",
                "severity": "warning",
                "path": "p.M.a (1)",
                "message": "gone",
                "remedy": "keep it",
                "old": "string",
                "new": None,
                "proto": {"file": "a/b.proto", "line": 3},
            }
        ],
    }
    json.dumps(document)


def test_annotations_are_escaped_and_name_files_from_the_top_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "sub"
    (here / "protos" / "a").mkdir(parents=True)
    (here / "x,1:y.py").write_text("")
    (here / "protos" / "a" / "b.proto").write_text("")
    monkeypatch.chdir(here)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    change = Change("field-type", "error", "p.M.a (1)", "changed", "keep it", "string", "int32", "a/b.proto:3")
    found = CheckReport(
        (
            ClassReport(
                "A",
                "app",
                None,
                "",
                None,
                (
                    Problem("parameters", "A.B", "100% wrong\r\nhere", "mend it", "x,1:y.py:7", "a/b.proto"),
                    Problem("unannotated", "A.C", "none", "write", "elsewhere.py:7"),
                ),
            ),
        ),
        (TargetFailure("other", "broken\ntwice", 1),),
        VersionComparison("old", ("p.S",), (change,), "nothing to compare"),
        False,
    )
    assert list(as_github(found)) == [
        "::error file=sub/x%2C1%3Ay.py,line=7,title=parameters::A.B: 100%25 wrong%0D%0Ahere (a/b.proto) → mend it",
        "::warning title=unannotated::A.C: none → write",
        "::error file=sub/protos/a/b.proto,line=3,title=field-type::p.M.a (1): changed (a/b.proto:3) → keep it",
        "::notice title=nothing-to-compare::nothing to compare",
        "::error title=sdk check::broken%0Atwice",
    ]


@pytest.mark.parametrize(
    ("severity", "strict", "failed", "expected"),
    [
        ("", False, 0, 0),
        ("warning", False, 0, 0),
        ("warning", True, 0, 1),
        ("error", False, 0, 1),
        ("", False, 1, 1),
        ("error", False, 2, 2),
    ],
)
def test_exit_code(severity: str, strict: bool, failed: int, expected: int) -> None:
    changes = (Change("r", severity, "p", "m", "r"),) if severity else ()  # type: ignore[arg-type]
    failures = (TargetFailure("t", "m", failed),) if failed else ()
    assert CheckReport((), failures, VersionComparison("o", (), changes), strict).exit_code == expected
