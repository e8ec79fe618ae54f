"""``sdk run`` on a local Ray until SIGTERM, with certificates: clients use TLS, and the handler reads their names."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import Authority, Pair
from tests.support.ports import free_port
from tests.support.processes import processes_with
from tests.support.sdk_command import SDK

AUTHORITY = Authority("tests")
SERVER, ANN = AUTHORITY.sign("server", dns=("localhost",)), AUTHORITY.sign("ann")
HANDLER = """\
        from sdk import current_context
        names = current_context().peer_identities()
        return Receipt(text=f"{request.item} for {names[0].decode()} at {current_context().peer()}")
"""


def write(folder: Path, pair: Pair) -> list[str]:
    certificate, key = pair.write(folder, "server")
    (folder / "ca.crt").write_bytes(AUTHORITY.certificate)
    return ["--tls-certificate", certificate, "--tls-private-key", key, "--tls-client-ca", "ca.crt"]


def test_clients_are_known_by_name_and_sigterm_leaves_nothing(project: Path, request: pytest.FixtureRequest) -> None:
    module = project / "shop_app.py"
    module.write_text(module.read_text().replace('        return Receipt(text=f"one {request.item}")\n', HANDLER))
    # Short: Ray keeps unix sockets below it, whose paths have at most 107 bytes.
    temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(temp))
    mark, port = uuid.uuid4().hex, free_port()
    command = [SDK, "run", "shop_app:app", "--name", "shop", "--address", "local", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *write(project, SERVER)],
        cwd=project,
        env={**os.environ, "SDK_TEST_MARK": mark, "TMPDIR": str(temp)},
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
            receipt = channel.unary_unary("/shop.Shop/Buy")(b"\x0a\x05apple", timeout=20)
        assert b"apple for ann at ipv4:127.0.0.1:" in receipt
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
    assert processes_with(mark) == []
    assert [path for path in temp.rglob("*") if "sdk-ingress" in path.name] == []


def test_the_key_of_another_certificate_is_reported_before_ray_starts(project: Path) -> None:
    options = write(project, Pair(SERVER.certificate, ANN.key))
    result = subprocess.run(
        [SDK, "run", "shop_app:app", "--address", "local", *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: TLS: tls_private_key ")
    assert "is not the key of the certificate" in line
