"""The dashboard and the alerts name metrics and labels that the SDK exports."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from sdk.cli.dashboards.command import ALERTS, DASHBOARD, dashboards
from tests.cli.test_alerts import FAULTS
from tests.serve.test_metrics_reference import exported
from tests.support.command_server import command_server
from tests.support.prometheus_programs import prometheus_program
from tests.support.sdk_command import only_line


@pytest.fixture
def written(tmp_path: Path) -> Path:
    done = CliRunner().invoke(dashboards, ["--out", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    return tmp_path / "made"


def queries(folder: Path) -> list[str]:
    panels = json.loads((folder / DASHBOARD).read_text())["panels"]
    groups = yaml.safe_load((folder / ALERTS).read_text())["groups"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())] + [
        rule["expr"] for group in groups for rule in group["rules"]
    ]


def test_each_query_names_metrics_that_exist_with_the_suffix_of_their_type(written: Path) -> None:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count"), "gauge": ("",)}
    known = {f"ray_{name}{suffix}" for name, metric in exported().items() for suffix in suffixes[metric.kind]}
    found = {name for query in queries(written) for name in re.findall(r"\bray_\w+", query)}
    assert found <= known
    of_dashboard = {name for query in queries(written)[: -len(FAULTS)] for name in re.findall(r"\bray_\w+", query)}
    # The rest is in Ray's own dashboards.
    assert {name for name in known if "sdk_ingress" in name} <= of_dashboard


def test_panels_do_not_overlap(written: Path) -> None:
    panels = json.loads((written / DASHBOARD).read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_prometheus_takes_the_rules(written: Path) -> None:
    promtool = prometheus_program("promtool")
    done = subprocess.run([promtool, "check", "rules", written / ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 rules found" in done.stdout


def test_prometheus_takes_the_queries_of_the_dashboard(written: Path, tmp_path: Path) -> None:
    promtool = prometheus_program("promtool")
    recorded = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries(written))
    ]
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps({"groups": [{"name": "all", "rules": recorded}]}))
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_copy_of_another_version_is_found(written: Path) -> None:
    def check() -> tuple[int, str]:
        done = CliRunner().invoke(dashboards, ["--out", str(written), "--check"])
        return done.exit_code, done.stderr

    assert check() == (0, "")
    (written / ALERTS).write_text("groups: []\n")
    (written / DASHBOARD).unlink()
    remedy = f"is stale or missing: run `sdk dashboards --out {written}`\n"
    assert check() == (1, f"{written / DASHBOARD} {remedy}{written / ALERTS} {remedy}")
    assert (written / ALERTS).read_text() == "groups: []\n"


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command_server().run(["dashboards", "--out", "file/below"], tmp_path, dict(os.environ))
    assert done.returncode == 2
    assert only_line(done) == "error: --out file/below can't be written: not a directory"
