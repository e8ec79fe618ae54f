"""The serving side as light modules see it: the functions of :class:`sdk._backend.Backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._serve.application import bind_class, check_options
from sdk._serve.internals import carry_model_id, current_request_id
from sdk._serve.replica import translate

__all__ = ["bind_class", "carry_model_id", "check_options", "current_request_id", "translate"]

if TYPE_CHECKING:
    from sdk import _serve
    from sdk._backend import Backend

    _checked: Backend = _serve.backend
