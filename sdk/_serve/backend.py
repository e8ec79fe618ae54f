"""The functions of :class:`sdk._backend.Backend`, which lower layers call without an import of Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdk._serve.application import bind_class, check_options
from sdk._serve.endpoint_source import distant_proxy, has_ingress, node_id
from sdk._serve.internals import current_metadata
from sdk._serve.ray_handles import answer_over_ray, ray_connection

__all__ = [
    "HAS_RAY",
    "answer_over_ray",
    "application_handle",
    "bind_class",
    "check_options",
    "current_metadata",
    "distant_proxy",
    "has_ingress",
    "node_id",
    "ray_connection",
]

HAS_RAY = True


def application_handle(name: str) -> Any:
    """Return Ray Serve's handle to the ingress deployment of an application; see ``sdk/_serve/api.py``."""
    # Every replica imports this module with its class. The other one costs it 3 MB: the ingress, and all of Envoy's
    # configuration.
    from sdk._serve import api

    return api.application_handle(name)


if TYPE_CHECKING:
    from sdk import _serve
    from sdk._backend import Backend

    _checked: Backend = _serve.backend
