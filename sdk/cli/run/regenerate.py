"""Brings generated code up to date before ``sdk run --reload`` imports it."""

from __future__ import annotations

from pathlib import Path

from sdk.errors import SdkError


class CodegenFailedError(SdkError):
    """Code could not be generated from the protos. Their author must act."""


class CodegenRunner:
    """Brings generated code up to date if ``[tool.sdk.codegen]`` configures it."""

    def __init__(self) -> None:
        self.folders: tuple[Path, ...] = ()
        self.files: tuple[Path, ...] = ()
        self.is_configured = False

    def run(self) -> str:
        """Generate files that are out of date.

        Returns:
            A summary of the changes; ``""`` if nothing changed.

        Raises:
            CodegenFailedError: A proto has an error, or the table is wrong.
        """
        try:
            from codegen import config, sync
            from codegen.errors import CodegenError
        except ModuleNotFoundError as error:  # the extra is not installed, only watchfiles
            self.is_configured = False
            return f"code is not generated: {error.name} is not installed: pip install 'ray-grpc-sdk[codegen]'"
        try:
            found = config.load(Path.cwd())
            self.is_configured = bool(found.file and found.protos and found.out)
            self.folders = (*found.protos, *found.proto_path)
            self.files = (found.file,) if found.file else ()
            if not self.is_configured or found.out is None:
                return ""
            result = sync.update(sync.Options(found.protos, found.out, found.proto_path, found.exclude, found.package))
        except CodegenError as error:
            raise CodegenFailedError("\n".join((*error.details, str(error)))) from error
        generated, removed = len(result.missing) + len(result.stale), len(result.extra)
        if not generated + removed:
            return ""
        return f"{found.out}: {generated} generated" + (f", {removed} removed" if removed else "")
