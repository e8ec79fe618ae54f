"""TLS between clients and Envoy: certificates come from files, and Envoy takes new ones without a restart.

Envoy follows certificates that it gets as secrets, not those that are part of a listener. The secrets are files of our
own, one each, that name the files of the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.wrappers_pb2 import BoolValue

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

_SERVER, _CLIENTS = "server-certificate", "client-ca"


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Where the certificates of one Envoy are.

    A file is replaced by moving a new one over it, or over a symbolic link on the way to it.

    Attributes:
        certificate: Path of the certificate chain, in PEM.
        private_key: Path of its private key, in PEM.
        secrets: Path of a folder for Envoy's secrets, which :func:`write_secrets` fills.
        client_ca: Path of the certificates that sign clients, in PEM. When it is given, every client must have one.
    """

    certificate: str
    private_key: str
    secrets: str
    client_ca: str | None = None


def write_secrets(config: TlsConfig) -> None:
    """Write the secrets; before the listener that needs them is published.

    Raises:
        OSError: The folder can't be written to.
    """
    Path(config.secrets).mkdir(mode=0o700, exist_ok=True)
    for secret in _secrets(config):
        response = pb.DiscoveryResponse(resources=[pack(secret)])
        Path(_secret_path(config, secret.name)).write_bytes(response.SerializeToString())


def transport_socket(config: TlsConfig) -> pb.TransportSocket:
    """Returns the part of a listener that makes it speak TLS."""
    common = pb.CommonTlsContext(
        # HTTP/1.1 too: gRPC-Web and health checks of load balancers use it.
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[_sds_config(config, _SERVER)],
    )
    context = pb.DownstreamTlsContext(common_tls_context=common)
    if config.client_ca is not None:
        context.common_tls_context.validation_context_sds_secret_config.CopyFrom(_sds_config(config, _CLIENTS))
        context.require_client_certificate.CopyFrom(BoolValue(value=True))
    return pb.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def _secrets(config: TlsConfig) -> Iterator[pb.Secret]:
    yield pb.Secret(
        name=_SERVER,
        tls_certificate=pb.TlsCertificate(
            certificate_chain=pb.DataSource(filename=config.certificate),
            private_key=pb.DataSource(filename=config.private_key),
            watched_directory=_watched_directory(config.certificate),
        ),
    )
    if config.client_ca is not None:
        yield pb.Secret(
            name=_CLIENTS,
            validation_context=pb.CertificateValidationContext(
                trusted_ca=pb.DataSource(filename=config.client_ca),
                watched_directory=_watched_directory(config.client_ca),
            ),
        )


def _sds_config(config: TlsConfig, name: str) -> pb.SdsSecretConfig:
    path = pb.PathConfigSource(path=_secret_path(config, name))
    return pb.SdsSecretConfig(
        name=name, sds_config=pb.ConfigSource(path_config_source=path, resource_api_version=pb.V3)
    )


def _secret_path(config: TlsConfig, name: str) -> str:
    return str(Path(config.secrets, f"{name}.pb"))


def _watched_directory(path: str) -> pb.WatchedDirectory:
    return pb.WatchedDirectory(path=str(Path(path).parent))
