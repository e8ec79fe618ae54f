"""The order in which proto files can be loaded: each file after those that it imports."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

FileT = TypeVar("FileT", bound=Hashable)


def imports_first(files: Iterable[FileT], imports_of: Callable[[FileT], Iterable[FileT]]) -> list[FileT]:
    """Return files and all that they import, each once and after its own imports.

    ``google.protobuf.FileDescriptorSet`` needs this order, and ``DescriptorPool`` loads files in it
    (https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto).

    Args:
        files: Files, as descriptors or by name.
        imports_of: Returns the direct imports of a file.

    Example:
        >>> imports = {"app.proto": ["types.proto", "base.proto"], "types.proto": ["base.proto"], "base.proto": []}
        >>> imports_first(["app.proto"], imports.__getitem__)
        ['base.proto', 'types.proto', 'app.proto']
    """
    ordered: list[FileT] = []
    seen: set[FileT] = set()

    def add(file: FileT) -> None:
        if file in seen:
            return
        seen.add(file)  # before its imports: files that a server describes may import each other in a circle
        for imported in imports_of(file):
            add(imported)
        ordered.append(file)

    for file in files:
        add(file)
    return ordered
