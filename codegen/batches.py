"""Divides many protos into batches, so that the memory of a run does not grow with their number.

protoc parses all files of a batch with everything that they import, and hands all of it to each plugin at once: for
each MB of protos, protoc takes about 30 MB, and the Python plugins as much.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sdk._proto_files.order import imports_first

if TYPE_CHECKING:
    from codegen.sources import Source

#: Bytes of protos in a batch, without what they import. Each batch starts protoc and Python, for 0.3 s of CPU time.
BATCH_BYTES = 5_000_000

# What batches import is parsed again in each. With all batches together, protoc may parse this many times as much as in
# one run with everything.
_MAX_REPEATED = 2.5

# It may match in a comment too: that changes the batches, and not what is generated. Python's re is fast if a pattern
# begins with a word.
_IMPORT = re.compile(rb"""import\s+(?:(?:public|weak|option)\s+)?["']([^"'\n]+)["']""")


def batches(sources: Sequence[Source], limit: int = BATCH_BYTES) -> list[list[Source]]:
    """Return sources in batches: each in the batch of what it imports, or in a later one.

    Args:
        sources: The protos to compile.
        limit: As in :func:`divide`.
    """
    sizes = {each.name: len(each.descriptor) or os.path.getsize(each.path) for each in sources}
    if sum(sizes.values()) <= limit:
        return [list(sources)]
    by_name = {source.name: source for source in sources}
    imports = {
        name: [] if each.descriptor else [found.decode(errors="replace") for found in _IMPORT.findall(each.read())]
        for name, each in by_name.items()
    }
    return [[by_name[name] for name in batch] for batch in divide(sizes, imports, limit)]


def divide(sizes: Mapping[str, int], imports: Mapping[str, Sequence[str]], limit: int) -> list[list[str]]:
    """Return names of protos in batches: each in the batch of what it imports, or in a later one.

    Args:
        sizes: Bytes of each proto by name.
        imports: Names that each proto imports.
        limit: Bytes of a batch. It is doubled until protoc does not parse too much more than once.

    Example:
        >>> divide({"a": 4, "b": 4, "c": 4}, {"a": ["c"], "b": [], "c": []}, 8)
        [['c', 'a'], ['b']]
    """

    def with_imports(names: Iterable[str]) -> list[str]:
        return imports_first(names, lambda name: imports.get(name, ()))

    ordered = [name for name in with_imports(sizes) if name in sizes]
    while True:
        divided = list(_cut(ordered, sizes, limit))
        parsed = sum(sizes.get(name, 0) for batch in divided for name in with_imports(batch))
        if len(divided) <= 1 or parsed <= _MAX_REPEATED * sum(sizes.values()):
            return divided
        limit *= 2


def _cut(ordered: Iterable[str], sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name in ordered:
        if batch and size + sizes[name] > limit:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += sizes[name]
    if batch:
        yield batch
