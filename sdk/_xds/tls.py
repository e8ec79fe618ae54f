"""TLS of Envoy, to clients and to other nodes, with certificates from files that it reloads without a restart.

Envoy reloads certificates from SDS secrets, but not those inlined in a listener. We write one SDS file for each secret;
it names the user's certificate files.
https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import BoolValue

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from sdk._guard.between_nodes import BetweenNodes
    from sdk._otel.otlp import Collector

_SERVER, _CLIENTS = "server-certificate", "client-ca"
_NODE, _NODES = "node-certificate", "node-ca"


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Paths of one Envoy's certificates.

    Replace a file by moving a new one over it, or over a symbolic link in its path.

    Attributes:
        certificate: Path of the certificate chain, in PEM.
        private_key: Path of its private key, in PEM.
        secrets: Path of the folder for Envoy's SDS files, written by :func:`write_secrets`.
        client_ca: Path of the CA certificates for clients, in PEM.
        requires_client_certificate: Whether every client must present a certificate if ``client_ca`` is set.
    """

    certificate: str
    private_key: str
    secrets: str
    client_ca: str | None = None
    requires_client_certificate: bool = True


def write_secrets(config: TlsConfig) -> None:
    """Write the SDS files. Call it before the listener that uses them is published.

    Raises:
        OSError: The folder can't be written to.
    """
    secrets = [_own(_SERVER, config.certificate, config.private_key)]
    if config.client_ca is not None:
        secrets.append(_authority(_CLIENTS, config.client_ca))
    _write(config.secrets, secrets)


def write_node_secrets(guard: BetweenNodes, folder: str) -> None:
    """Write the SDS files for connections to other nodes. Call it before the first clusters are published.

    Args:
        guard: Ray's certificates.
        folder: Path of the folder for Envoy's SDS files.

    Raises:
        OSError: The folder can't be written to.
    """
    _write(folder, [_own(_NODE, guard.certificate, guard.private_key), _authority(_NODES, guard.ca)])


def transport_socket(config: TlsConfig) -> pb.TransportSocket:
    """Return the transport socket that terminates TLS on the listener."""
    common = pb.CommonTlsContext(
        # HTTP/1.1 too: gRPC-Web and health checks of load balancers use it.
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[_sds_config(config.secrets, _SERVER)],
    )
    context = pb.DownstreamTlsContext(common_tls_context=common)
    if config.client_ca is not None:
        context.common_tls_context.validation_context_sds_secret_config.CopyFrom(_sds_config(config.secrets, _CLIENTS))
        context.require_client_certificate.CopyFrom(BoolValue(value=config.requires_client_certificate))
    return pb.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def node_transport_socket(secrets: str) -> pb.TransportSocket:
    """Return the transport socket to replicas on other nodes, with mutual TLS.

    Args:
        secrets: Path of the folder into which :func:`write_node_secrets` has written.
    """
    context = pb.CommonTlsContext(
        tls_certificate_sds_secret_configs=[_sds_config(secrets, _NODE)],
        validation_context_sds_secret_config=_sds_config(secrets, _NODES),
    )
    packed = pack(pb.UpstreamTlsContext(common_tls_context=context))
    return pb.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed)


def collector_transport_socket(collector: Collector) -> pb.TransportSocket:
    """Return the transport socket of connections to a collector, which check its certificate and its name."""
    assert collector.ca is not None
    context = pb.CommonTlsContext(
        alpn_protocols=["http/1.1"] if collector.path else ["h2"],
        validation_context=pb.CertificateValidationContext(trusted_ca=pb.DataSource(filename=collector.ca)),
    )
    packed = pack(pb.UpstreamTlsContext(common_tls_context=context, sni=collector.host, auto_sni_san_validation=True))
    return pb.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed)


def _own(name: str, certificate: str, private_key: str) -> pb.Secret:
    return pb.Secret(
        name=name,
        tls_certificate=pb.TlsCertificate(
            certificate_chain=pb.DataSource(filename=certificate),
            private_key=pb.DataSource(filename=private_key),
            watched_directory=_watched_directory(certificate),
        ),
    )


def _authority(name: str, ca: str) -> pb.Secret:
    return pb.Secret(
        name=name,
        validation_context=pb.CertificateValidationContext(
            trusted_ca=pb.DataSource(filename=ca), watched_directory=_watched_directory(ca)
        ),
    )


def _write(folder: str, secrets: Iterable[pb.Secret]) -> None:
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    for secret in secrets:
        response = pb.DiscoveryResponse(resources=[pack(secret)])
        Path(_secret_path(folder, secret.name)).write_bytes(response.SerializeToString())


def _sds_config(folder: str, name: str) -> pb.SdsSecretConfig:
    path = pb.PathConfigSource(path=_secret_path(folder, name))
    return pb.SdsSecretConfig(
        name=name, sds_config=pb.ConfigSource(path_config_source=path, resource_api_version=pb.V3)
    )


def _secret_path(folder: str, name: str) -> str:
    return str(Path(folder, f"{name}.pb"))


def _watched_directory(path: str) -> pb.WatchedDirectory:
    return pb.WatchedDirectory(path=str(Path(path).parent))
