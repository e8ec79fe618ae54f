"""Config files: their content, and the errors in them that are found before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sdk
from sdk._serve.config_file import read_config
from sdk._serve.yaml_lines import LineNumbers

GOOD = """\
proxy_location: HeadOnly
grpc_options:
  port: 9100
  request_timeout_s: 4
sdk:
  host: 0.0.0.0
  port: 9200
  route_by_service: true
  tls_certificate: tls/server.crt
  tls_private_key: /etc/tls/server.key
applications:
  - name: shop
    import_path: shop_app:build
    args: {word: two}
    route_prefix: null
    runtime_env: {env_vars: {SDK_GRPC_ERROR_DETAILS: message, SDK_GRPC_HOST: "127.0.0.2"}}
    deployments:
      - {name: Counter, num_replicas: 2, user_config: {a: 1}}
  - {name: stock, import_path: package.stock.app, route_prefix: /stock}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop_app.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "stock.py").touch()
    return tmp_path


def problems(text: str, path: str = "serve.yaml") -> list[str]:
    Path(path).write_text(text)
    with pytest.raises(sdk.OptionsError) as raised:
        read_config(path)
    return [line.strip().removeprefix("- ").removeprefix(f"{path}:") for line in str(raised.value).splitlines()[1:]]


def applications(text: str) -> str:
    return "applications:\n" + text


def test_a_file_has_applications_and_options_of_the_ingress(folder: Path) -> None:
    Path("serve.yaml").write_text(GOOD)
    config = read_config("serve.yaml")
    assert config.names == ("shop", "stock")
    assert config.options == {
        "port": 9200,  # the sdk section comes before grpc_options
        "request_timeout_s": 4,
        "proxy_location": "HeadOnly",
        "error_details": "message",
        "host": "0.0.0.0",
        "route_by_service": True,
        "tls_certificate": str(folder / "tls" / "server.crt"),
        "tls_private_key": "/etc/tls/server.key",
    }
    assert not config.serves_http
    shop = config.schema.applications[0]
    assert (shop.args, shop.deployments[0].num_replicas, shop.deployments[0].user_config) == (
        {"word": "two"},
        2,
        {"a": 1},
    )


def test_import_paths_start_in_the_working_directory_and_in_the_files_folder(folder: Path) -> None:
    (folder / "deploy").mkdir()
    (folder / "deploy" / "beside.py").touch()
    Path("deploy/serve.yaml").write_text(
        applications(
            "  - {name: a, import_path: 'beside:app'}\n  - {name: b, import_path: 'shop_app:app', route_prefix: /b}"
        )
    )
    assert read_config("deploy/serve.yaml").folders == (str(folder), str(folder / "deploy"))


def test_http_runs_only_with_http_options() -> None:
    Path("serve.json").write_text(
        json.dumps({"http_options": {"port": 8001}, "applications": [{"import_path": "shop_app:app"}]}, indent="\t")
    )
    config = read_config("serve.json")
    assert config.serves_http
    assert config.names == ("default",)


def test_every_problem_is_reported_with_its_line() -> None:
    wrong = """\
proxy_location: Somewhere
grpc_options:
  port: 70000
sdk:
  route_by_servce: true
  error_details: loud
applications:
  - name: shop
    import_path: shop_app:app
    name: again
  - name: stock
    import_path: stock
    deployments:
      - name: Counter
        num_replica: 2
        num_replicas: many
"""
    found = problems(wrong)
    assert found[0].startswith("1: proxy_location: Input should be 'Disabled', 'HeadOnly' or 'EveryNode'")
    assert found[1:5] == [
        "2: grpc_options: port must be a whole number from 1 to 65535, not 70000",
        "4: sdk: error_details must be one of traceback, message, none, not 'loud'",
        "5: sdk.route_by_servce is unknown; did you mean route_by_service?",
        "10: name appears twice",
    ]
    assert found[5].startswith('12: applications[1].import_path: Got invalid import path "stock".')
    assert found[6].startswith("14: applications[1].deployments[0]: `num_replicas` must be an int")
    assert found[7] == "15: applications[1].deployments[0].num_replica is unknown; did you mean num_replicas?"
    assert len(found) == 8


def test_a_module_that_does_not_exist(folder: Path) -> None:
    first = "  - {name: a, import_path: 'shop_ap:app'}\n"
    assert problems(applications(first + "  - {name: b, import_path: package.shop.app, route_prefix: /b}")) == [
        f"2: application 'a': no module named 'shop_ap' in {folder}",
        f"3: application 'b': no module named 'package.shop' in {folder}",
    ]


def test_two_applications_without_a_route_prefix() -> None:
    (found,) = problems(applications("  - {name: a, import_path: 'a:app'}\n  - {name: b, import_path: 'b:app'}"))
    assert found.startswith('1: applications: Found duplicate applications for route prefix "/".')
    assert found.endswith("One that serves gRPC only may have `route_prefix: null`.")


def test_a_module_from_the_runtime_env_is_not_checked() -> None:
    Path("serve.yaml").write_text(
        applications("  - import_path: elsewhere:app\n    runtime_env: {working_dir: 'https://example.com/code.zip'}")
    )
    assert read_config("serve.yaml").names == ("default",)


def test_an_unknown_key_without_a_close_match_is_left_to_ray_serve() -> None:
    Path("serve.yaml").write_text(
        "whatever_the_next_version_brings: 1\n" + applications("  - import_path: shop_app:app")
    )
    assert read_config("serve.yaml").names == ("default",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("applications: [", "serve.yaml:1: not YAML: expected the node content, but found '<stream end>'"),
        ("- a", "serve.yaml:1: a config is a mapping with `applications`, not list"),
        ("", "serve.yaml:1: it is empty; a config is a mapping with `applications`"),
        ("day: 2026-13-01", "serve.yaml has a value that can't be read: month must be in 1..12"),
        ("[\n" * 5000, "serve.yaml is nested too deeply"),
    ],
)
def test_a_file_that_is_not_a_config(text: str, message: str) -> None:
    Path("serve.yaml").write_text(text)
    with pytest.raises(sdk.OptionsError) as raised:
        read_config("serve.yaml")
    assert str(raised.value) == message


def test_variables_that_are_not_texts() -> None:
    start = "  - import_path: shop_app:app\n    runtime_env:\n      env_vars: "
    where = "4: applications[0].runtime_env.env_vars"
    assert problems(applications(f"{start}3")) == [f"{where} must be a mapping of names to texts, not 3"]
    assert problems(applications(f"{start}{{A: 3, B: b}}")) == [f"{where}.A must be a text: put it in quotes"]


def test_an_alias_of_what_contains_it() -> None:
    Path("serve.yaml").write_text(applications("  - import_path: shop_app:app\n    args: &all {all: *all}"))
    assert read_config("serve.yaml").names == ("default",)
    assert problems("applications: &all\n  - *all")[0].startswith("1: applications")


def test_nothing_to_serve() -> None:
    assert problems("applications: []") == ["1: applications is empty: there is nothing to serve"]
    assert problems("sdk: 3\n" + applications("  - import_path: shop_app:app")) == [
        "1: sdk must be a mapping of the ingress's options, not 3"
    ]


def test_a_missing_file() -> None:
    with pytest.raises(sdk.ApplicationError, match=r"nowhere\.yaml can't be read: no such file"):
        read_config("nowhere.yaml")


def test_the_line_of_a_missing_value_is_that_of_its_parent() -> None:
    lines = LineNumbers("a:\n  - b: 1\n\n    c: {d: 2}\n")
    paths = (("a",), ("a", 0, "c", "d"), ("a", 0, "x"), ("a", 7), ("y",))
    assert [lines.line_of(path) for path in paths] == [1, 4, 2, 1, 1]
