"""`make node-tls`: a Ray cluster of two machines with ``RAY_USE_TLS``, whose certificates are replaced under load.

Makes the machines, as network namespaces, and the certificates, then runs ``two_tls_nodes.py`` with Ray's variables in
its environment: Ray reads them when it is imported. Needs root. Exits with 1 if a promise was not kept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.cluster import ROOT, generate, set_import_path, share_with_replicas
from tests.support.namespaces import machines

_LONGEST_S = 300


def main() -> int:
    """Run the program, and return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # do not leave the namespaces
    share_with_replicas(ROOT / "examples" / "guide", generate(ROOT / "tests" / "integration" / "protos"))
    set_import_path()
    first, other, stranger = Authority("first"), Authority("other"), Authority("stranger")
    with machines(1) as (here, ((namespace, there),)), tempfile.TemporaryDirectory(prefix="node-tls-") as path:
        folder = Path(path)
        for name, authority in (("node", first), ("renewed", first), ("other", other), ("stranger", stranger)):
            authority.sign("node", dns=("localhost",), ips=(here, there)).write(folder, name)
        (folder / "ca.crt").write_bytes(first.certificate)
        (folder / "other-ca.crt").write_bytes(other.certificate)
        (folder / "both.crt").write_bytes(first.certificate + other.certificate)
        environment = {
            **os.environ,
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
            "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
            "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
            # Ray starts processes while the load's threads call.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        command = [sys.executable, "-m", "tests.security.two_tls_nodes", path, here, there, namespace]
        with subprocess.Popen(command, env=environment) as program:
            try:
                return program.wait(_LONGEST_S)
            finally:
                program.terminate()  # it then stops its nodes; nothing happens if it has ended


if __name__ == "__main__":
    sys.exit(main())
