"""Check TLS files on the node where Envoy will read them: Envoy would only log an error, and refuse connections."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sdk._error_text import os_reason
from sdk._guard.secret_files import read_secret_file, warn_of_mode
from sdk.errors import IngressError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from sdk.options import GrpcOptions


def check_certificates(options: GrpcOptions) -> None:
    """Check the TLS files of the options on this node, and warn of a private key that others can read.

    Raises:
        IngressError: A file can't be read or is not valid, or key and certificate do not match. Lists every problem.
    """
    if options.tls_certificate is None or options.tls_private_key is None:
        return
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    problems: list[str] = []
    certificate = _certificates("tls_certificate", options.tls_certificate, problems)
    data = _read("tls_private_key", options.tls_private_key, problems)
    try:
        key = load_pem_private_key(data, None) if data is not None else None
    except TypeError:
        problems.append(f"tls_private_key {options.tls_private_key}: the key is encrypted, and Envoy has no password")
    except ValueError:
        problems.append(f"tls_private_key {options.tls_private_key}: not a private key in PEM")
    else:
        if certificate and key is not None and certificate[0].public_key() != key.public_key():
            problems.append(
                f"tls_private_key {options.tls_private_key} is not the key of the certificate {options.tls_certificate}"
            )
    if options.tls_client_ca is not None:
        _certificates("tls_client_ca", options.tls_client_ca, problems)
    if problems:
        raise IngressError("TLS: " + "; ".join(problems))
    warn_of_mode(options.tls_private_key, is_secret=True)


def _certificates(name: str, path: str, problems: list[str]) -> list[Certificate]:
    from cryptography import x509

    data = _read(name, path, problems)
    if data is None:
        return []
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        problems.append(f"{name} {path}: not a certificate in PEM")
        return []
    ends = found[0].not_valid_after_utc
    if ends < datetime.datetime.now(datetime.UTC):
        problems.append(f"{name} {path}: expired on {ends:%Y-%m-%d %H:%M} UTC")
    return found


def _read(name: str, path: str, problems: list[str]) -> bytes | None:
    try:
        return read_secret_file(path)
    except (OSError, ValueError) as error:
        problems.append(f"{name} {path}: {os_reason(error)}")
        return None
