from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from sdk import GrpcOptions, OptionsError
from sdk._ingress.envoy.certificates import check_certificates
from sdk.errors import IngressError
from tests.support.certificates import Authority, Pair

AUTHORITY = Authority("tests")
ONE, OTHER = AUTHORITY.sign("one"), AUTHORITY.sign("other")
EXPIRED = AUTHORITY.sign("expired", valid_hours=-1)


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


def options(folder: Path, pair: Pair, ca: bytes | None = AUTHORITY.certificate) -> GrpcOptions:
    certificate, key = pair.write(folder, "server")
    if ca is not None:
        (folder / "ca.crt").write_bytes(ca)
    return GrpcOptions(tls_certificate=certificate, tls_private_key=key, tls_client_ca=str(folder / "ca.crt"))


def test_valid_files(tmp_path: Path) -> None:
    check_certificates(options(tmp_path, Pair(ONE.certificate + AUTHORITY.certificate, ONE.key)))
    check_certificates(GrpcOptions())


@pytest.mark.parametrize(
    ("pair", "ca", "message"),
    [
        (
            Pair(ONE.certificate, OTHER.key),
            None,
            r"tls_private_key \S+/server.key is not the key of the certificate \S+",
        ),
        (ONE, None, r"tls_client_ca \S+/ca.crt: no such file or directory"),
        (ONE, b"text", r"tls_client_ca \S+/ca.crt: not a certificate in PEM"),
        (Pair(ONE.key, ONE.key), None, r"tls_certificate \S+/server.crt: not a certificate in PEM"),
        (
            Pair(ONE.certificate, ONE.certificate),
            None,
            r"tls_private_key \S+/server.key: not a private key in PEM",
        ),
        (Pair(ONE.certificate, encrypted(ONE.key)), None, "the key is encrypted, and Envoy has no password"),
        (EXPIRED, None, r"tls_certificate \S+/server.crt: expired on 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
    ],
)
def test_invalid_files_are_rejected(tmp_path: Path, pair: Pair, ca: bytes | None, message: str) -> None:
    with pytest.raises(IngressError, match=message):
        check_certificates(options(tmp_path, pair, ca))


def test_a_pipe_in_place_of_a_key_is_refused_at_once(tmp_path: Path) -> None:
    given = options(tmp_path, ONE)
    key = Path(given.tls_private_key or "")
    key.unlink()
    os.mkfifo(key)  # nobody writes: to read it would block the proxy
    with pytest.raises(IngressError, match=r"tls_private_key \S+/server.key: it is not a regular file"):
        check_certificates(given)


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_private_key_that_others_can_read_is_warned_of(
    tmp_path: Path, mode: int, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given = options(tmp_path, ONE)
    Path(given.tls_private_key or "").chmod(mode)
    check_certificates(given)
    expected = f"{given.tls_private_key} has mode {mode:04o}: others can read or change it; make it 0600"
    assert [record.getMessage() for record in caplog.records] == ([expected] if is_warned else [])


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    given = options(tmp_path, Pair(b"", b""))
    Path(given.tls_certificate or "").unlink()
    with pytest.raises(IngressError) as raised:
        check_certificates(given)
    assert str(raised.value).startswith("TLS: tls_certificate ")
    assert "no such file" in str(raised.value)
    assert "not a private key" in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_certificate": "/a"}, "must be given together"),
        ({"tls_private_key": "/a"}, "must be given together"),
        ({"tls_client_ca": "/a"}, "tls_client_ca must come with tls_certificate and tls_private_key"),
        (
            {"tls_certificate": "a", "tls_private_key": "/b"},
            "tls_certificate must be an absolute path or None, not 'a'",
        ),
        ({"tls_certificate": 1, "tls_private_key": "/b"}, "tls_certificate must be an absolute path or None, not 1"),
    ],
)
def test_inconsistent_options_are_rejected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        GrpcOptions(**given)
