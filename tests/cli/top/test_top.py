"""`sdk top`: its output and exit codes, with an exporter in this process in place of Ray's."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner, Result

from sdk._figures.scrape import read_nodes
from sdk.cli.cluster_origin import ClusterOrigin
from sdk.cli.main import main
from sdk.errors import ClusterError
from tests.support.ports import free_port

LINE = 'ray_serve_num_grpc_requests_total{{application="shop",method="/s.S/M",status_code="{}",WorkerId="w"}} {}\n'
GAUGE = 'ray_sdk_replica_queued_grpc_requests{application="shop",deployment="D",replica="r",WorkerId="w"} 4.0\n'


class Exporter(BaseHTTPRequestHandler):
    reads = 0
    status = 200
    body: bytes | None = None

    def do_GET(self) -> None:
        type(self).reads += 1
        text = LINE.format("OK", 100 * self.reads) + LINE.format("ABORTED", 10 * self.reads) + GAUGE
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(text.encode() if self.body is None else self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[str]:
    Exporter.reads = 0
    with HTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Addresses of the nodes' exporters; the wait between two readings is over at once."""
    addresses: set[str] = set()
    monkeypatch.setattr("sdk.cli.ray_cluster.connect", lambda _: ClusterOrigin("10.0.0.5:6379", 1, "ada", "/shop"))
    monkeypatch.setattr("sdk._figures.scrape.read_metrics", lambda: read_nodes(addresses))
    monkeypatch.setattr("sdk.cli.top.command.sleep", lambda _: None)
    return addresses


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["top", *arguments])


def test_json(exporter: str, nodes: set[str]) -> None:
    nodes.add(exporter)
    done = run("--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (method,) = found["methods"]
    assert (method["application"], method["method"]) == ("shop", "/s.S/M")
    assert method["calls_per_s"] == pytest.approx(110 / found["seconds"])
    assert method["errors_per_s"] == {"ABORTED": pytest.approx(10 / found["seconds"])}
    assert [(each["replica"], each["queued"]) for each in found["replicas"]] == [("r", 4)]
    assert "Ray at 10.0.0.5:6379" in done.stderr


def test_text_where_there_is_no_terminal(exporter: str, nodes: set[str]) -> None:
    nodes.add(exporter)
    done = run()
    assert done.exit_code == 0, done.output
    (method,) = (line for line in done.stdout.splitlines() if "/s.S/M" in line)
    assert "ABORTED" in method
    assert any("D/r" in line for line in done.stdout.splitlines())


def test_a_node_that_does_not_answer_is_named_and_the_others_are_shown(exporter: str, nodes: set[str]) -> None:
    silent = f"127.0.0.1:{free_port()}"
    nodes.update({exporter, silent})
    done = run()
    assert done.exit_code == 1
    assert f"no metrics of {silent}: connection refused" in done.stdout
    assert "/s.S/M" in done.stdout


def test_no_node_answers(nodes: set[str]) -> None:
    silent = f"127.0.0.1:{free_port()}"
    nodes.add(silent)
    done = run()
    assert done.exit_code == 1
    assert f"error: no node exports metrics ({silent}: connection refused)" in done.stderr
    with pytest.raises(ClusterError, match="no node is alive"):
        read_nodes(set())


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"<html>", 200, "what it serves are not metrics; does another program listen on this port?"),
        (b"\xff\xfe", 200, "what it serves are not metrics; does another program listen on this port?"),
        (b"", 404, "Not Found"),
    ],
)
def test_another_server_on_the_port_of_a_node(
    exporter: str, nodes: set[str], monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, reason: str
) -> None:
    monkeypatch.setattr(Exporter, "body", body)
    monkeypatch.setattr(Exporter, "status", status)
    nodes.add(exporter)
    done = run("--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"error: no node exports metrics ({exporter}: {reason})." in done.stderr


def test_nodes_are_read_without_the_http_proxy_of_the_environment(
    exporter: str, nodes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    nodes.add(exporter)
    assert run("--json").exit_code == 0


def test_a_node_that_hangs(exporter: str, nodes: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # it accepts, and does not answer
        monkeypatch.setattr("sdk._figures.scrape._TIMEOUT_S", 0.1)
        address = f"127.0.0.1:{hangs.getsockname()[1]}"
        nodes.add(address)
        done = run()
    assert done.exit_code == 1
    assert f"error: no node exports metrics ({address}: TimeoutError: timed out)" in done.stderr


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ClusterError("No Ray cluster runs on this machine.")

    monkeypatch.setattr("sdk.cli.ray_cluster.connect", refuse)
    done = run("--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("error: No Ray cluster runs on this machine.\n")


def test_a_terminal_shows_figures_until_ctrl_c_also_while_no_node_answers(
    exporter: str, nodes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.add(exporter)
    waits = iter([lambda: None, nodes.clear, lambda: nodes.add(exporter)])

    def sleep(_: float) -> None:
        try:
            next(waits)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("sdk.cli.top.command.sleep", sleep)
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich a terminal
    done = run()
    assert done.exit_code == 130, done.output
    before, _, after = done.stdout.partition("no node exports metrics (no node is alive)")
    assert "/s.S/M" in before
    assert "/s.S/M" in after


def test_a_time_that_is_shorter_than_rays_interval_is_refused(nodes: set[str]) -> None:
    done = run("--over", "3")
    assert done.exit_code == 2
    assert "--over" in done.stderr
