from __future__ import annotations

from urllib.parse import quote

import pytest

from sdk._wire.peer import auth_context_of, peer_of
from tests.support.certificates import Authority

PEM = Authority("tests").sign("ann", organization="Acme", dns=("a.org",), uri=("spiffe://acme/ann",)).certificate
HEADER = f'Hash=ab12;Cert="{quote(PEM, safe="")}"'


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("127.0.0.1:50000", "ipv4:127.0.0.1:50000"),
        ("[::1]:50000", "ipv6:%5B::1%5D:50000"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_peer_has_grpcs_form(address: str | None, peer: str) -> None:
    assert peer_of(address) == peer


@pytest.mark.parametrize("certificate", [None, HEADER], ids=["no header", "a header"])
def test_nobody_is_authenticated_without_tls(certificate: str | None) -> None:
    assert auth_context_of(b"http", certificate and certificate.encode()) == {}
    assert auth_context_of(None, certificate and certificate.encode()) == {}


@pytest.mark.parametrize("certificate", [None, "", "Hash=ab12", 'By=spiffe://server;Hash=ab12;Subject="CN=ann"'])
def test_tls_without_a_certificate_gives_no_name(certificate: str | None) -> None:
    assert auth_context_of(b"https", certificate and certificate.encode()) == {"transport_security_type": (b"ssl",)}


@pytest.mark.parametrize("before", ["", "By=spiffe://server;"])
def test_a_certificate_gives_its_names(before: str) -> None:
    assert auth_context_of(b"https", (before + HEADER).encode()) == {
        "transport_security_type": (b"ssl",),
        "x509_common_name": (b"ann",),
        "x509_subject": (b"CN=ann,O=Acme",),
        "x509_subject_alternative_name": (b"a.org", b"spiffe://acme/ann"),
        "x509_pem_cert": (PEM,),
    }
