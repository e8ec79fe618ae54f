"""Where in a YAML or JSON file a value stands, so that what is wrong with it can be found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]  # Ray brings it, without types


class Lines:
    r"""The lines of a file's values.

    Args:
        text: The file, which YAML can read; JSON is YAML, too.

    Example:
        >>> lines = Lines("applications:\n  - name: shop\n    import_path: app:app\n")
        >>> lines.of(("applications", 0, "import_path"))
        3
        >>> lines.of(("applications", 0, "args", "word"))
        2
    """

    def __init__(self, text: str) -> None:
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def of(self, path: Sequence[str | int]) -> int:
        """Return the line of what a path of keys and indexes leads to, as far as it does; the first line is 1."""
        node, line = self._root, 1
        for step in path:
            found = _child(node, step)
            if found is None:
                # pydantic names the types that it tried amid the path.
                continue
            line, node = found
        return line

    def duplicates(self) -> Iterator[tuple[int, str]]:
        """Yield the line and name of each key that stands twice in one place, where YAML takes the last."""
        pending = [self._root]
        while pending:
            node = pending.pop()
            if isinstance(node, yaml.MappingNode):
                seen = set()
                for key, value in node.value:
                    if key.value in seen:
                        yield key.start_mark.line + 1, str(key.value)
                    if isinstance(key.value, str):
                        seen.add(key.value)
                    pending.append(value)
            elif isinstance(node, yaml.SequenceNode):
                pending += node.value


def _child(node: Any, step: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None
