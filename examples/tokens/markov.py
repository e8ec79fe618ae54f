"""A language model that fits on a page: counts of the word that follows two others in a text."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator

END = "."
_WORD = re.compile(r"[\w']+|[.,]")

TEXT = """
The river carries the boats past the town. The boats carry salt and grain and letters. The town waits for the boats
and the boats wait for the tide. The tide waits for the moon. When the moon is late, the river is low, and the boats
lie still in the mud. When the river is high, the boats hurry past the mill, and the miller waves from the bridge. The
miller waits for the grain, and the bakers wait for the miller. When the grain is late, the bakers walk to the bridge,
and they look down the river for the boats. The letters wait for nobody. When a letter is late, the town talks about
the tide, and about the moon, and about the miller who waves from the bridge to the boats that carry the letters.
"""


class MarkovModel:
    """Continues a text by drawing each next word from those that followed the last two, else the last one.

    Args:
        text: To learn from.
    """

    def __init__(self, text: str = TEXT) -> None:
        self._words = words = split(text)
        self._next: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            self._next[first, second].append(third)
            self._next[(second,)].append(third)

    def continue_text(self, prompt: str, seed: int) -> Iterator[str]:
        """Yield words without end; after the last word of a sentence comes the first of another."""
        chance = random.Random(seed)
        words = split(prompt) or ["the"]
        while True:
            followers = self._next.get(tuple(words[-2:])) or self._next.get((words[-1],)) or self._next.get((END,))
            words = [words[-1], chance.choice(followers or self._words)]
            yield words[-1]


def split(text: str) -> list[str]:
    """Return the words and stops of a text, in lower case."""
    return _WORD.findall(text.lower())
