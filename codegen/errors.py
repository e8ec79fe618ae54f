"""The one error of the code generator."""

from __future__ import annotations

from collections.abc import Sequence


class CodegenError(Exception):
    """Code can't be generated. The text is fit to be shown to the user without a traceback.

    Attributes:
        details: Lines to show before the message: what protoc said, one finding each.
        exit_code: What the command exits with: 1 when the protos are at fault, 2 when the command was used wrongly.
    """

    def __init__(self, message: str, *, details: Sequence[str] = (), exit_code: int = 1) -> None:
        super().__init__(message)
        self.details = tuple(details)
        self.exit_code = exit_code
