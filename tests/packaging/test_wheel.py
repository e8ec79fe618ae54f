"""A wheel of this tree, installed elsewhere, runs a project that is not in this repository. Needs no network."""

from __future__ import annotations

import email
import json
import re
import shlex
import shutil
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.packaging.shop import REPO, install, run
from tests.support import small_ray
from tests.support.ports import free_port

README = (REPO / "README.md").read_text()
_BLOCKS = re.compile(r"^```(?:proto|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The README's program, on a separate Ray and another port, with the README's client while it serves.
MAIN = f"""
import runpy

import ray

if __name__ == "__main__":
    runpy.run_path({small_ray.__file__!r})["leave_out_processes"]()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        runpy.run_path("serve.py")
    finally:
        ray.shutdown()
"""


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the wheel. It uses the dependencies of the environment that runs the tests."""
    venv = tmp_path_factory.mktemp("venv")
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)], venv)
    (site_packages,) = venv.glob("lib/python*/site-packages")
    # After the venv's packages, and without its .pth files: an editable installation of this tree is not found.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install(wheel, venv)
    return venv


@pytest.fixture(scope="module")
def project(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's files, and its command that generates code."""
    folder = tmp_path_factory.mktemp("project")
    port = str(free_port())
    proto, app, client, serve = (block.replace("9000", port) for block in _BLOCKS.findall(README))
    (folder / "protos").mkdir()
    (folder / "protos" / "greet.proto").write_text(proto)
    (folder / "app.py").write_text(app)
    (folder / "client.py").write_text(client)
    served, end = serve.split("sdk.shutdown()\n")
    (folder / "serve.py").write_text(f"{served}import runpy\n\nrunpy.run_path('client.py')\nsdk.shutdown()\n{end}")
    (folder / "main.py").write_text(MAIN)
    assert "5 written" in run([f"{venv}/bin/sdk", "codegen", "protos/", "--out", "."], folder)
    return folder


def test_the_wheel_has_the_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"sdk/py.typed", "codegen/py.typed", "codegen/templates/python/sdk.py.jinja"} <= names
    templates = [path.relative_to(REPO / "templates/project") for path in REPO.glob("templates/project/**/*.jinja")]
    assert len(templates) == 24
    assert {f"codegen/templates/project/{name}" for name in templates} <= names
    pages = [path for path in REPO.glob("sdk/_pages/static/**/*") if path.is_file()]
    assert {path.relative_to(REPO).as_posix() for path in pages} <= names
    assert "sdk/_pages/static/docs.html" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"sdk", "codegen", "ray_grpc_sdk.py"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_readme_of_the_package_has_links_that_work_outside_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        described = email.message_from_bytes(archive.read(name))
    urls = dict(url.split(", ") for url in described.get_all("Project-URL", []))
    assert {"Repository", "Documentation", "Changelog", "Issues"} == urls.keys()
    prefix = f"{urls['Repository']}/blob/main/"
    links = re.findall(r"\]\(([^)]+)\)", described.get_payload())
    assert [link for link in links if not link.startswith("https://")] == []
    own = [link.removeprefix(prefix) for link in (*links, urls["Documentation"]) if link.startswith(prefix)]
    assert len(own) > 15
    assert [path for path in own if not (REPO / path.partition("#")[0]).exists()] == []


def test_packages_are_those_of_the_wheel(venv: Path, project: Path) -> None:
    code = "import sdk, codegen; print(sdk.__file__); print(codegen.__file__)"
    for line in run([f"{venv}/bin/python", "-c", code], project).splitlines():
        assert Path(line).is_relative_to(venv)


def test_versions_agree(venv: Path, project: Path) -> None:
    code = "import sdk, importlib.metadata as m; print(sdk.__version__ == m.version('ray-grpc-sdk'))"
    assert run([f"{venv}/bin/python", "-c", code], project) == "True\n"


def test_generated_code_is_up_to_date_afterwards(venv: Path, project: Path) -> None:
    run([f"{venv}/bin/sdk", "codegen", "protos/", "--out", ".", "--check"], project)


def test_makes_a_new_project_and_its_image(venv: Path, tmp_path: Path) -> None:
    """Install what its Dockerfile copies, in the environment of the wheel, and find the application there."""
    run([f"{venv}/bin/sdk", "new", "kiosk"], tmp_path)
    project, image = tmp_path / "kiosk", tmp_path / "image"
    run([f"{venv}/bin/sdk", "codegen", "--check"], project)
    assert "Kiosk: fits" in run([f"{venv}/bin/sdk", "check", "--strict", "kiosk.service"], project)
    image.mkdir()
    served = ""
    for step, _, rest in (line.partition(" ") for line in (project / "Dockerfile").read_text().splitlines()):
        if step == "COPY":
            *sources, target = rest.split()
            for source in (project / name for name in sources):
                if source.is_dir():
                    shutil.copytree(source, image / target)
                else:
                    shutil.copy(source, image / target)
        elif rest.startswith("pip install"):
            *pip, ray = shlex.split(rest)
            assert ray == f"ray[serve]=={metadata.version('ray')}"
            offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
            run([sys.executable, "-m", "pip", f"--python={venv}/bin/python", *pip[1:], *offline], image)
        elif step == "CMD":
            command, subcommand, served, *options = json.loads(rest)
            assert [command, subcommand, *options] == ["sdk", "run", "--name", "kiosk"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "Kiosk: fits" in run([f"{venv}/bin/sdk", "check", "--strict", served], elsewhere)


def test_checks_the_application(venv: Path, project: Path) -> None:
    assert "Greeter: fits" in run([f"{venv}/bin/sdk", "check", "app"], project)


def test_serves_the_application_as_the_readme_says(venv: Path, project: Path) -> None:
    assert run([f"{venv}/bin/python", "main.py"], project).splitlines()[:2] == ["True", "Hello you"]
