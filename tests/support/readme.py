"""The commands in the examples' READMEs, with the output that the READMEs show."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2] / "examples"
#: The folders of the examples. The guide has separate tests, and `make demo` runs it.
EXAMPLES = tuple(sorted(folder for folder in ROOT.iterdir() if (folder / "README.md").exists()))

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    words: tuple[str, ...]
    output: str

    @property
    def name(self) -> str:
        """``"sdk check"``, or ``"python"``."""
        return " ".join(self.words[:2]) if self.words[0] == "sdk" else self.words[0]


def commands(example: Path) -> list[Command]:
    """Return the commands of an example's README, in its order."""
    blocks = _BLOCK.findall((example / "README.md").read_text())
    found = []
    for part in "".join(blocks).split("$ ")[1:]:
        line, _, output = part.partition("\n")
        found.append(Command(tuple(shlex.split(line)), output))
    return found
