"""Read the output of the model, and cancel after enough of it.

``python language_model_client.py localhost:9000``
"""

import asyncio
import sys

from language_model_pb2 import FinishReason, Prompt, StatsRequest
from language_model_sdk import LanguageModelClient

PROMPTS = (
    Prompt(text="The river", seed=1, max_tokens=8),
    Prompt(text="When the moon", seed=7),
    Prompt(text="The letters wait", seed=33, stop=["river"]),
)


async def main(target: str) -> None:
    """Let the model finish in every way, then cancel in the middle."""
    async with LanguageModelClient(target, timeout=30) as client:
        for prompt in PROMPTS:
            words, reason = [], FinishReason.UNFINISHED
            async for token in client.Generate(prompt):  # arrives word by word
                words.append(token.text)
                reason = token.finish_reason
            print(f"{prompt.text} … {' '.join(words).strip()} [{FinishReason.Name(reason)}]")

        call = client.Generate(Prompt(text="The town", seed=3, stop=["never"]))
        words = []
        async for token in call:
            words.append(token.text)
            if len(words) == 6:
                call.cancel()  # the handler ends at its next step
                break
        print("The town …", " ".join(words), "[enough]")

        stats = await client.GetStats(StatsRequest())
        while not stats.abandoned:
            await asyncio.sleep(0.01)
            stats = await client.GetStats(StatsRequest())
        print(f"{stats.finished} finished, {stats.abandoned} abandoned")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"))
