"""The functions of :class:`sdk._backend.Backend`, which lower layers call without an import of Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._serve.api import application_handle
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

if TYPE_CHECKING:
    from sdk import _serve
    from sdk._backend import Backend

    _checked: Backend = _serve.backend
