"""Find the sentences that mean the same: ``python encoder_client.py localhost:9000``."""

import sys
from itertools import combinations

from sentences_pb2 import Texts
from sentences_sdk import EncoderSyncClient

SENTENCES = (
    "A man is eating food.",
    "Someone has a meal.",
    "The stock market fell sharply today.",
    "Shares lost a lot of their value this morning.",
)


def main(target: str) -> None:
    """Print the similarity of each pair of sentences, the closest first."""
    with EncoderSyncClient(target, timeout=30) as client:
        vectors = [vector.values for vector in client.Encode(Texts(texts=SENTENCES)).vectors]
    pairs = [
        (sum(x * y for x, y in zip(vectors[i], vectors[j], strict=True)), SENTENCES[i], SENTENCES[j])
        for i, j in combinations(range(len(vectors)), 2)
    ]
    print(f"{len(vectors[0])} dimensions")
    for similarity, one, other in sorted(pairs, reverse=True):
        print(f"{similarity:.2f} {one} / {other}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
