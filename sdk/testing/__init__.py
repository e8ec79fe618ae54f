"""Serve an application in a test: the wire server of a replica behind a real Envoy, in this process, without Ray.

``import sdk`` is enough: the first use of ``sdk.testing`` imports it.
"""

from sdk.testing._faults import Fault
from sdk.testing._server import Server, serve

__all__ = ["Fault", "Server", "serve"]
