"""Applications of a config file, checked before Ray Serve builds them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk
from sdk._serve.config_applications import check_deployment_names, configured_needs, load_applications
from sdk._serve.config_file import ServeConfig, read_config
from sdk._serve.replica_resources import ReplicaNeeds

MODULE = """\
from ray import serve

@serve.deployment
class Counter:
    pass

app = Counter.bind()

def build(args):
    return Counter.options(num_replicas=args["replicas"]).bind()
"""
BROKEN = "import a_package_that_only_the_cluster_has"
REFUSED = """\
from sdk.errors import OptionsError
raise OptionsError("Counter.bind: missing a required argument: 'word'")
"""
CONFIG = """\
applications:
  - name: one
    import_path: counted_app:app
    route_prefix: /one
    deployments:
      - {name: Counter, num_replicas: 3}
  - name: two
    import_path: counted_app:build
    route_prefix: /two
    args: {replicas: 2}
  - name: three
    import_path: broken_app:app
    route_prefix: /three
    deployments:
      - {name: Anything}
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in {"counted_app": MODULE, "broken_app": BROKEN, "refused_app": REFUSED}.items():
        (tmp_path / f"{name}.py").write_text(code)
    yield
    for name in ("counted_app", "broken_app", "refused_app"):
        sys.modules.pop(name, None)


def read(text: str) -> ServeConfig:
    Path("serve.yaml").write_text(text)
    return read_config("serve.yaml")


def test_needs_of_the_applications_that_can_be_built_here() -> None:
    config = read(CONFIG)
    applications = load_applications(config)
    check_deployment_names(config, applications)
    assert configured_needs(config, applications) == [
        ReplicaNeeds("one", "Counter", 3, {"CPU": 1}),
        ReplicaNeeds("two", "Counter", 2, {"CPU": 1}),
    ]


def test_a_module_that_ends_the_program_is_left_to_ray_serve() -> None:
    Path("broken_app.py").write_text("raise SystemExit(3)")
    assert list(load_applications(read(CONFIG))) == ["one", "two"]


def test_an_application_that_brings_its_code_is_not_built_here() -> None:
    text = CONFIG.replace("    args:", "    runtime_env: {working_dir: 's3://bucket/app.zip'}\n    args:")
    assert list(load_applications(read(text))) == ["one"]


def test_a_deployment_that_does_not_exist_is_named_with_its_line() -> None:
    wrong = CONFIG.replace("{name: Counter, num", "{name: Cuonter, num")
    config = read(wrong.replace("name: two\n", "name: two\n    deployments: [{name: Z}]\n"))
    with pytest.raises(sdk.OptionsError) as raised:
        check_deployment_names(config, load_applications(config))
    assert str(raised.value).splitlines() == [
        "serve.yaml: 2 problems",
        "  - serve.yaml:6: application 'one' has no deployment 'Cuonter'; did you mean 'Counter'?",
        "  - serve.yaml:8: application 'two' has no deployment 'Z'; it has 'Counter'",
    ]


def test_an_error_of_the_sdk_is_reported_with_the_line_of_its_application() -> None:
    with pytest.raises(sdk.OptionsError, match=r"serve.yaml:3: application 'one': Counter.bind: missing"):
        load_applications(read(CONFIG.replace("counted_app:app", "refused_app:app")))
