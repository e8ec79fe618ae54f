"""Error of the code generator."""

from __future__ import annotations

from collections.abc import Sequence


class CodegenError(Exception):
    """Code can't be generated. The message is for the user, without a traceback.

    Attributes:
        details: Lines to show before the message: the messages of protoc.
        exit_code: Exit code of the command: 1 if a proto has an error, 2 if the command was used wrongly.
    """

    def __init__(self, message: str, *, details: Sequence[str] = (), exit_code: int = 1) -> None:
        super().__init__(message)
        self.details = tuple(details)
        self.exit_code = exit_code
