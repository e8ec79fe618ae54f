"""Address and identity of the client, from headers that Envoy sets. A client can't forge them: Envoy replaces its own.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import unquote

from sdk.context import API_KEY_NAME, COMMON_NAME, PEM_CERTIFICATE, SAN, TOKEN_CLAIMS, TOKEN_ISSUER, TOKEN_SUBJECT

# Not the names that Envoy can add as text: a name that contains `;URI=` would look like two.
_CERTIFICATE = re.compile(r'(?:\A|;)Cert="([^"]*)"')


def peer_of(address: str | None) -> str:
    """Return a peer in gRPC's form, ``"ipv4:127.0.0.1:50000"`` (https://github.com/grpc/grpc/blob/master/doc/naming.md).

    Args:
        address: Envoy's ``x-forwarded-for``, ``"127.0.0.1:50000"`` or ``"[::1]:50000"``.

    Example:
        >>> peer_of("[::1]:50000")
        'ipv6:%5B::1%5D:50000'
    """
    if not address:
        return "unknown"
    if address.startswith("["):
        return "ipv6:" + address.replace("[", "%5B").replace("]", "%5D")
    return f"ipv4:{address}"


@functools.lru_cache(maxsize=256)  # a client calls often, and parsing a certificate costs 0.1 ms
def auth_context_of(
    scheme: bytes | None,
    certificate: bytes | None,
    claims: bytes | None = None,
    api_key: bytes | None = None,
    visible: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> Mapping[str, tuple[bytes, ...]]:
    """Return the properties of an authenticated peer, under gRPC's names; empty for a peer without any.

    Args:
        scheme: Envoy's ``x-forwarded-proto``.
        certificate: Envoy's ``x-forwarded-client-cert``; None if the client has none.
        claims: Claims of the client's token, as Envoy sends them; None if it has none.
        api_key: Name of the client's API key; None if it has none.
        visible: Issuer → names of its claims that handlers see; all of an issuer that is not named.

    Example:
        >>> dict(auth_context_of(b"http", None, None, b"batch"))
        {'api_key_name': (b'batch',)}
    """
    found: dict[str, tuple[bytes, ...]] = {}
    if scheme == b"https":
        found["transport_security_type"] = (b"ssl",)
        match = _CERTIFICATE.search((certificate or b"").decode("latin-1"))
        if match is not None:
            found.update(_read_certificate(unquote(match[1])))
    if claims is not None:
        found.update(_read_claims(claims, dict(visible)))
    if api_key is not None:
        found[API_KEY_NAME] = (api_key,)
    return MappingProxyType(found)


def _read_claims(encoded: bytes, visible: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[bytes, ...]]:
    data = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    claims = json.loads(data)
    issuer = claims.get("iss")
    if isinstance(issuer, str) and issuer in visible:
        claims = {name: value for name, value in claims.items() if name in visible[issuer]}
        data = json.dumps(claims).encode()
    found: dict[str, tuple[bytes, ...]] = {TOKEN_CLAIMS: (data,)}
    for key, name in ((TOKEN_ISSUER, "iss"), (TOKEN_SUBJECT, "sub")):
        if isinstance(claims.get(name), str):
            found[key] = (claims[name].encode(),)
    return found


def _read_certificate(pem: str) -> dict[str, tuple[bytes, ...]]:
    from cryptography import x509  # not before a client has a certificate
    from cryptography.x509.oid import NameOID

    certificate = x509.load_pem_x509_certificate(pem.encode())
    found: dict[str, tuple[bytes, ...]] = {
        PEM_CERTIFICATE: (pem.encode(),),
        "x509_subject": (certificate.subject.rfc4514_string().encode(),),
    }
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if common:
        found[COMMON_NAME] = tuple(str(name.value).encode() for name in common)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    texts = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress)
    alternatives = tuple(str(name.value).encode() for name in names if isinstance(name, texts))
    return {**found, SAN: alternatives} if alternatives else found
