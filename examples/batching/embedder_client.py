"""Embed texts one after the other, then at once: ``python embedder_client.py localhost:9000``."""

import asyncio
import sys

from embedder_pb2 import Embedding, Text
from embedder_sdk import EmbedderClient

TEXTS = [f"text number {number}" for number in range(64)]


def similarity(one: Embedding, other: Embedding) -> float:
    """Return the cosine of the angle between two vectors of length 1."""
    return sum(a * b for a, b in zip(one.values, other.values, strict=True))


async def main(target: str) -> None:
    """Show that concurrent calls form batches."""
    async with EmbedderClient(target, timeout=10) as client:
        alone = [await client.Embed(Text(text=text)) for text in TEXTS[:4]]
        print("one after the other: batches of", max(reply.batch_size for reply in alone))
        calls = [client.Embed(Text(text=text)) for text in TEXTS]
        together = [await call for call in calls]
        print("at once: batches of up to", max(reply.batch_size for reply in together))
        print(f"the same vectors: {similarity(alone[0], together[0]):.3f}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"))
