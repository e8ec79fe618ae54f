"""The functions of :class:`sdk._backend.Backend`, which lower layers call without an import of Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._serve.application import bind_class, check_options
from sdk._serve.internals import current_request_id, propagate_model_id
from sdk._serve.replica import translate

__all__ = ["HAS_RAY", "bind_class", "check_options", "current_request_id", "propagate_model_id", "translate"]

HAS_RAY = True

if TYPE_CHECKING:
    from sdk import _serve
    from sdk._backend import Backend

    _checked: Backend = _serve.backend
