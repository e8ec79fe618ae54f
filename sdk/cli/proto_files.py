"""Descriptors from proto files, which are compiled, and from files of descriptors."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from sdk._error_text import os_reason
from sdk.errors import OptionsError

_GZIP = b"\x1f\x8b"


def read_descriptors(paths: Sequence[Path], includes: Sequence[Path], option: str) -> FileDescriptorSet:
    """Return the descriptors of proto files with all that they import. A file may be in the result twice.

    Args:
        paths: Proto files, folders of them, and files of descriptors (``protoc --descriptor_set_out``, a buf image).
        includes: Folders to look for imported protos in, in addition to those of ``pyproject.toml``.
        option: The option of the command line that gave them, for messages: ``"--against"``.

    Raises:
        OptionsError: A file can't be read or compiled.
    """
    for path in paths:
        if not os.path.exists(path):  # not Path.exists, which raises an error for a name that is too long
            raise OptionsError(f"{option} {path}: no such file or folder")
    found = FileDescriptorSet()
    protos = [path for path in paths if path.is_dir() or path.suffix == ".proto"]
    if protos:
        found.MergeFrom(_compiled(protos, includes, option))
    for path in paths:
        if path not in protos:
            found.MergeFrom(_read(path, option))
    return found


def _read(path: Path, option: str) -> FileDescriptorSet:
    source = f"{option} {path}".strip()
    try:
        data = path.read_bytes()
        files = FileDescriptorSet.FromString(gzip.decompress(data) if data.startswith(_GZIP) else data)
    except OSError as error:
        raise OptionsError(f"{source}: can't be read: {os_reason(error)}") from None
    except (EOFError, zlib.error) as error:
        raise OptionsError(f"{source}: can't be read: {error}") from None
    except DecodeError:
        files = FileDescriptorSet()
    if not files.file or not all(file.name for file in files.file):
        raise OptionsError(
            f"{source}: not a file of descriptors; make one with `protoc --include_imports --descriptor_set_out`"
        )
    return files


def _compiled(paths: Sequence[Path], includes: Sequence[Path], option: str) -> FileDescriptorSet:
    # Imported here: files of descriptors need no compiler.
    try:
        from codegen import compile as compiler
        from codegen import config, sources
        from codegen.errors import CodegenError
    except ModuleNotFoundError as error:
        raise OptionsError(
            f"{option}: protos need {error.name}, which is not installed: pip install 'ray-grpc-sdk[codegen]'"
        ) from None
    try:
        includes = [*includes, *config.load(Path.cwd()).proto_path]
        with compiler.Protoc(sources.find(paths, includes), includes) as protoc:
            protoc.read()
            return FileDescriptorSet.FromString(protoc.descriptors())
    except CodegenError as error:
        source = f"{option} {' '.join(map(str, paths))}".strip()
        raise OptionsError("\n".join([f"{source}: {error}", *error.details])) from None
