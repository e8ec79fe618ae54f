"""Serve an application in a test: the wire server of a replica behind a real Envoy, in this process, without Ray.

Import it by name (``import sdk.testing``), or let ``sdk.testing`` be imported when it is first used.
"""

from sdk.testing._faults import Fault
from sdk.testing._server import Server, serve

__all__ = ["Fault", "Server", "serve"]
