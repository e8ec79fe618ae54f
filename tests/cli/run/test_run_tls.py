"""``sdk run`` on a local Ray until SIGTERM, with certificates and a collector.

Clients use TLS, and the handler reads their names. The collector gets the spans of the replica, of the ingress and of
Envoy's own answers, and the access log.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import Authority, Pair
from tests.support.otlp_receiver import Received, receiving
from tests.support.ports import free_port
from tests.support.processes import left_with, processes_with
from tests.support.sdk_command import Run, only_line
from tests.support.small_ray import program_environment

AUTHORITY = Authority("tests")
SERVER, ANN = AUTHORITY.sign("server", dns=("localhost",)), AUTHORITY.sign("ann")
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
REFUSED = "5" * 32
RULES = """\
applications:
  - {name: shop, import_path: "shop_app:app", route_prefix: null}
sdk:
  access:
    rules:
      - {who: anyone, methods: [shop.Shop/Buy]}
"""
HANDLER = """\
        from sdk import current_context
        names = current_context().peer_identities()
        return Receipt(text=f"{request.item} for {names[0].decode()} at {current_context().peer()}")
"""


def check_what_is_seen(collector: Received) -> None:
    """Check spans and access log of calls that a replica, the ingress and Envoy have answered, one each."""
    spans = {span.resource["service.name"]: span for span in collector.trace(TRACE, lambda found: len(found) == 2)}
    assert spans["shop"].name == "server shop.Shop/Buy"
    assert spans["grpc-ingress"].name == "server grpc"
    assert (
        spans["grpc-ingress"].attributes.items()
        >= {
            "rpc.method": "_OTHER",
            "rpc.method_original": "shop.Shop/Buy",
            "rpc.status_code": "NOT_FOUND",
            "ray.serve.request_id": "r2",
        }.items()
    )
    (own,) = collector.trace(REFUSED, bool)
    assert (own.name, own.parent, own.resource["service.name"]) == ("server grpc", "b7ad6b7169203331", "grpc-ingress")
    assert (
        own.attributes.items()
        >= {
            "rpc.method": "_OTHER",
            "rpc.method_original": "shop.Shop/Sell",
            "rpc.status_code": "PERMISSION_DENIED",
            "ray.serve.request_id": "r3",
        }.items()
    )
    records = {record.attributes["request_id"]: record.attributes for record in collector.logs(3)}
    assert (records["r1"]["application"], records["r1"]["status"]) == ("shop", "OK")
    assert records["r1"]["tls_subject"] == "CN=ann"
    assert (records["r2"]["application"], records["r2"]["status"]) == ("-", "NOT_FOUND")
    assert records["r3"]["status"] == "PERMISSION_DENIED"


def write(folder: Path, pair: Pair) -> list[str]:
    certificate, key = pair.write(folder, "server")
    (folder / "ca.crt").write_bytes(AUTHORITY.certificate)
    return ["--tls-certificate", certificate, "--tls-private-key", key, "--tls-client-ca", "ca.crt"]


@pytest.fixture
def collector() -> Iterator[Received]:
    with receiving() as received:
        yield received


def test_clients_are_known_by_name_and_sigterm_leaves_nothing(
    project: Path, request: pytest.FixtureRequest, collector: Received
) -> None:
    module = project / "shop_app.py"
    module.write_text(module.read_text().replace('        return Receipt(text=f"one {request.item}")\n', HANDLER))
    # Short: Ray keeps unix sockets below it, whose paths have at most 107 bytes.
    temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(temp))
    mark, port = uuid.uuid4().hex, free_port()
    (project / "shop.yaml").write_text(RULES)
    command = [sys.executable, "-m", "tests.support.sdk_on_small_ray", "run", "shop.yaml", "--address", "local"]
    process = subprocess.Popen(
        [*command, "--port", str(port), *write(project, SERVER), "--access-log", "otlp"],
        cwd=project,
        env=program_environment(
            SDK_TEST_MARK=mark,
            TMPDIR=str(temp),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
            OTEL_BSP_SCHEDULE_DELAY="100",
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    shown = []
    for line in process.stdout:
        shown.append(line.strip())
        if "Ctrl-C" in line:
            break
    else:
        pytest.fail(process.communicate()[1])
    try:
        assert shown[:2] == ["application shop: RUNNING", "deployment Counter: HEALTHY, 1 replica, serves shop.Shop"]
        credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate, ANN.key, ANN.certificate)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            buy = channel.unary_unary("/shop.Shop/Buy")
            receipt = buy(b"\x0a\x05apple", timeout=20, metadata=[TRACEPARENT, ("request_id", "r1")])
            with pytest.raises(grpc.RpcError) as unknown:
                buy(b"", timeout=20, metadata=[TRACEPARENT, ("request_id", "r2"), ("application", "none")])
            refused = [("traceparent", f"00-{REFUSED}-b7ad6b7169203331-01"), ("request_id", "r3")]
            with pytest.raises(grpc.RpcError) as denied:
                channel.unary_unary("/shop.Shop/Sell")(b"", timeout=20, metadata=refused)
        assert b"apple for ann at ipv4:127.0.0.1:" in receipt
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
        check_what_is_seen(collector)
        for stranger in (
            grpc.insecure_channel(f"localhost:{port}"),
            grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(AUTHORITY.certificate)),
        ):
            with stranger as channel, pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary("/shop.Shop/Buy")(b"", timeout=20)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert len(processes_with(mark)) > 3
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert left_with(mark) == []
    assert [path for path in temp.rglob("*") if "sdk-ingress" in path.name] == []


def test_the_key_of_another_certificate_is_reported_before_ray_starts(sdk: Run, project: Path) -> None:
    options = write(project, Pair(SERVER.certificate, ANN.key))
    result = sdk("run", "shop_app:app", *options, RAY_ADDRESS="local")
    assert result.returncode == 1
    line = only_line(result)
    assert line.startswith("error: TLS: tls_private_key ")
    assert "is not the key of the certificate" in line
