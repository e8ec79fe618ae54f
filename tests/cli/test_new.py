"""``sdk new``: the project passes every check unchanged, and an error leaves no files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from codegen import scaffold
from codegen.errors import CodegenError
from sdk.cli.main import main
from tests.support.command_server import command_server
from tests.support.type_checkers import mypy_cache

BIN = Path(sys.executable).parent
LONGEST = "n" * scaffold._LONGEST


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["new", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def refused(*arguments: str) -> str:
    done = new(*arguments)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tool(folder: Path, *command: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sdk(folder: Path, *arguments: str) -> str:
    done = command_server().run(arguments, folder, os.environ)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_with_the_longest_name_it_passes_what_its_readme_says(here: Path) -> None:
    # test_newcomer.py has a shorter one, and test_new_templates.py runs pyright.
    assert new(LONGEST).exit_code == 0
    project = here / LONGEST
    assert "all up to date" in sdk(project, "codegen", "--check")
    assert "fits" in sdk(project, "check", "--strict", f"{LONGEST}.service")
    assert sdk(project, "dashboards", "--out", "monitoring", "--check") == ""
    tool(project, "ruff", "check", ".")
    tool(project, "ruff", "format", "--check", ".")
    assert re.fullmatch(r"3 passed in \S+", tool(project, "pytest", "-q").splitlines()[-1])  # and no warnings


def test_details_of_errors_pass_mypy(here: Path) -> None:
    assert new("shop").exit_code == 0
    service = here / "shop" / "shop" / "service.py"
    code = service.read_text().replace(
        "import grpc\n", "import grpc\nfrom google.rpc.error_details_pb2 import BadRequest\n"
    )
    details = 'BadRequest(field_violations=[{"field": "name", "description": "is empty"}])'
    service.write_text(code.replace('"name is empty")', f'"name is empty", errors=[{details}])'))
    assert details in service.read_text()
    with mypy_cache() as cache:
        assert tool(here / "shop", "mypy", **cache).startswith("Success: ")


def test_lines_keep_to_the_length_that_ruff_checks(here: Path) -> None:
    assert new("shop").exit_code == 0
    length = tomllib.loads((here / "shop" / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    own = [path for path in contents(here / "shop") if not path.startswith(("shop/gen/", "monitoring/"))]
    long = [
        (path, line) for path in own for line in (here / "shop" / path).read_text().splitlines() if len(line) > length
    ]
    assert (len(own), long) == (13, [])


def test_it_pins_the_generator_of_its_code(here: Path) -> None:
    assert new("shop").exit_code == 0
    (dev,) = tomllib.loads((here / "shop" / "pyproject.toml").read_text())["project"]["optional-dependencies"].values()
    assert f"grpcio-tools=={version('grpcio-tools')}" in dev


def test_its_ci_runs_the_checks_of_the_readme(here: Path) -> None:
    assert new("shop").exit_code == 0
    steps = yaml.safe_load((here / "shop" / ".github/workflows/ci.yml").read_text())["jobs"]["check"]["steps"]
    run = [step["run"].replace("--format github ", "") for step in steps if "run" in step]
    _, _, commands = (here / "shop" / "README.md").read_text().partition("## In CI\n\n")
    said = [command.strip() for line in commands.partition("\n\n")[0].splitlines() for command in line.split("&&")]
    assert run == ["pip install -e '.[dev]'", *said]


def test_it_says_what_comes_next(here: Path) -> None:
    done = new("services/my-shop", "--package", "shop", "--service", "Till")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "services/my-shop: 22 files, including the code generated from protos/shop.proto. Next:",
        "",
        "  cd services/my-shop",
        "  pip install -e '.[dev]'",
        "  sdk check --strict shop.service",
        "  pytest",
        "  sdk run shop.service:app --reload",
        "",
        "Then, in another terminal:",
        "",
        """  sdk call localhost:9000 shop.v1.Till/Greet -d '{"name": "you"}'""",
        "",
        "See README.md for more.",
    ]
    assert "service Till {" in (here / "services" / "my-shop" / "protos" / "shop.proto").read_text()
    assert 'name = "my-shop"' in (here / "services" / "my-shop" / "pyproject.toml").read_text()


def test_the_current_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = here / "shop"
    (repository / ".git").mkdir(parents=True)
    monkeypatch.chdir(repository)
    done = new(".")
    assert done.exit_code == 0, done.output
    assert "cd " not in done.stdout
    assert (repository / "shop" / "gen" / "shop_sdk.py").exists()
    assert sorted(path.name for path in repository.iterdir() if path.name.startswith(".")) == [
        ".git",
        ".github",
        ".gitignore",
    ]


def test_a_folder_that_is_not_empty_is_not_changed(here: Path) -> None:
    (here / "shop").mkdir()
    for name in ("a", "b", "c", "d"):
        (here / "shop" / name).write_text("mine")
    assert refused("shop") == "shop is not empty: it has a, b, c …; choose another name, or move these files away"
    assert contents(here) == {f"shop/{name}": b"mine" for name in "abcd"}


def test_a_file_of_that_name(here: Path) -> None:
    (here / "shop").write_text("mine")
    assert refused("shop") == "shop is a file; choose another name"
    (here / "other").write_text("mine")
    assert refused("other/shop") == "can't write to other/shop: not a directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["9lives"],
            "'9lives' can't name a project: use letters, digits, '-' and '_', a letter first, no '-' or '_' last",
        ),
        (["my shop"], "'my shop' can't name a project"),
        (["shop-"], "'shop-' can't name a project"),
        (["lambda"], "'lambda' can't name a Python package: it is a Python keyword; choose one with --package"),
        (["json"], "'json' can't name a Python package: it would hide the module 'json' of Python's standard library"),
        (["sdk"], "'sdk' can't name a Python package: it would hide the installed module 'sdk' ("),
        (["grpc"], "'grpc' can't name a Python package: it would hide the installed module 'grpc' ("),
        (["tests"], "'tests' can't name a Python package: the project has another folder tests/"),
        ([f"{LONGEST}n"], "it has more than 30 characters; choose one with --package"),
        (["shop", "--package", "Shop"], "'Shop' can't name a Python package: use lower-case letters"),
        (["shop", "--package", "a.b"], "'a.b' can't name a Python package: use lower-case letters"),
        (["shop", "--service", "till"], "'till' can't name a service: use letters and digits, a capital letter"),
        (["shop", "--service", "GreetReply"], "'GreetReply' can't name a service: the code of the project uses"),
        (["exception"], "'Exception' can't name a service: the code of the project uses this name for something else"),
    ],
)
def test_names_that_can_not_be_used(here: Path, arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("package", ["message", "option", "service", "package", "match"])
def test_words_of_protos_are_names_as_others(here: Path, package: str) -> None:
    assert new("project", "--package", package).exit_code == 0
    compile((here / "project" / package / "gen" / f"{package}_sdk.py").read_text(), "generated", "exec")


def test_a_folder_next_to_the_project_is_not_an_installed_module(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "shop_data").mkdir()
    monkeypatch.syspath_prepend(str(here))
    assert scaffold.choose_names("shop_data").package == "shop_data"


def test_a_failure_in_the_middle_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, placed = os.replace, []

    def replace(source: str, target: str) -> None:
        if os.fspath(target).startswith("work/shop/"):
            if len(placed) == 5:
                raise OSError(28, "No space left on device")
            placed.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert refused("work/shop") == "can't write to work/shop: no space left on device"
    assert (len(placed), list(here.iterdir())) == (5, [])


def test_a_folder_that_another_process_fills_is_not_changed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = scaffold.choose_names("shop")
    files = scaffold.files_of(names)

    def meanwhile(_: object) -> dict[str, bytes]:
        (here / "shop").mkdir()
        (here / "shop" / "README.md").write_text("mine")
        return files

    monkeypatch.setattr(scaffold, "files_of", meanwhile)
    with pytest.raises(CodegenError, match=r"is not empty: it has README\.md"):
        scaffold.create(here / "shop", names, {})
    assert contents(here) == {"shop/README.md": b"mine"}


def test_without_the_extra_the_error_names_it() -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None; sys.argv = ['sdk', 'new', 'shop']\n"
        "from sdk.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "error: `sdk new` needs jinja2, which is not installed: pip install 'ray-grpc-sdk[codegen]'\n"
