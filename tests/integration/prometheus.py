"""A Prometheus that scrapes a few addresses, from Debian's package ``prometheus``."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.loops import PATIENCE_S
from tests.support.ports import free_port
from tests.support.prometheus_programs import prometheus_program


class Prometheus:
    """A running Prometheus.

    Args:
        address: Its own address.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    @classmethod
    @contextmanager
    def start(cls, folder: Path, targets: Sequence[str], rules: Path) -> Iterator[Prometheus]:
        """Start one, which ends with the context; enter it when there are two samples, and rules were evaluated.

        Args:
            folder: Folder for its configuration and data.
            targets: Addresses to scrape.
            rules: File with rules.
        """
        config = {
            # A scrape may take as long as the interval, and Ray's agent is slow on a busy machine.
            "global": {"scrape_interval": "3s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": list(targets)}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        found = cls(f"127.0.0.1:{free_port()}")
        command = [
            *(
                prometheus_program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--web.listen-address={found._address}",
            ),
            *(f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"),
        ]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                found._until(lambda: found._counts_samples(targets) >= 2, folder / "log")
                found._until(lambda: all(rule["lastEvaluation"] > "1" for rule in found.rules()), folder / "log")
                yield found
            finally:
                process.terminate()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now."""
        return list(self._get("query", query=expression)["result"])

    def wait_for(self, expression: str) -> None:
        """Wait until an expression has a series.

        Raises:
            AssertionError: It has none in time.
        """
        until = time.monotonic() + PATIENCE_S
        while not self.query(expression):
            assert time.monotonic() < until, f"no data: {expression}"
            time.sleep(0.2)

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules of all groups with their state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _counts_samples(self, targets: Sequence[str]) -> int:
        """Return the least number of samples that each target has given."""
        found = self.query("sum_over_time(up[1m])")
        return min(int(series["value"][1]) for series in found) if len(found) == len(targets) else 0

    def _until(self, condition: Callable[[], bool], log: Path) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                if condition():
                    return
            except urllib.error.URLError as error:  # it is starting
                problem = str(error)
            else:
                problem = "no samples"
            assert time.monotonic() < until, f"{problem}: {log.read_text()[-2000:]}"
            time.sleep(0.1)

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]
