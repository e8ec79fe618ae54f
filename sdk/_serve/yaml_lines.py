"""Line numbers of the values in a YAML or JSON file, for error messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]  # Ray brings it, without types


class LineNumbers:
    r"""The line numbers of a file's values.

    Args:
        text: The file's text, in YAML. JSON is YAML, too, unless it is indented with tabs.

    Example:
        >>> lines = LineNumbers("applications:\n  - name: shop\n    import_path: app:app\n")
        >>> lines.line_of(("applications", 0, "import_path"))
        3
        >>> lines.line_of(("applications", 0, "args", "word"))
        2
    """

    def __init__(self, text: str) -> None:
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def line_of(self, path: Sequence[str | int]) -> int:
        """Return the line of a value, or of the innermost value on its path that exists; the first line is 1.

        Args:
            path: Keys and indexes that lead to the value.
        """
        node, line = self._root, 1
        for step in path:
            found = _child(node, step)
            if found is None:
                # pydantic puts the names of the types that it tried into the path.
                continue
            line, node = found
        return line

    def duplicates(self) -> Iterator[tuple[int, str]]:
        """Yield the line and name of each key that appears twice in one mapping; YAML would use the last."""
        pending, known = [self._root], set()
        while pending:
            node = pending.pop()
            if id(node) in known:  # an alias names it again, perhaps within itself
                continue
            known.add(id(node))
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
