"""Stream the output of a language model, word by word. Run it with ``sdk run language_model_app:app``."""

import asyncio
from collections.abc import AsyncIterator

import grpc
from language_model_pb2 import FinishReason, Prompt, Stats, StatsRequest, Token
from language_model_sdk import LanguageModelBase
from markov import END, MarkovModel

from sdk import RpcError, grpc_deployment

MOST_TOKENS = 1_000_000


@grpc_deployment(max_ongoing_requests=32)
class LanguageModel(LanguageModelBase):
    """One model for all calls.

    Args:
        step_s: Seconds that the model takes for a token.
    """

    def __init__(self, step_s: float = 0.01) -> None:
        self.model = MarkovModel()
        self.step_s = step_s
        self.stats = Stats()

    async def Generate(self, request: Prompt) -> AsyncIterator[Token]:
        if not 0 <= request.max_tokens <= MOST_TOKENS:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"max_tokens must be from 0 to {MOST_TOKENS}")
        limit = request.max_tokens or MOST_TOKENS
        stop = {word.lower() for word in request.stop}
        reason = FinishReason.UNFINISHED
        index = 0
        try:
            for word in self.model.continue_text(request.text, request.seed):
                # The model works here. When the client cancels or its deadline passes, the handler ends here.
                await asyncio.sleep(self.step_s)
                if word in stop:
                    reason = FinishReason.STOP
                elif word == END and not stop:
                    reason = FinishReason.END_OF_TEXT
                else:
                    # If the client reads slower than the model writes, the buffers fill and the handler waits here.
                    yield Token(text=word, index=index)
                    index += 1
                    self.stats.tokens += 1
                    if index == limit:
                        reason = FinishReason.LENGTH
                if reason:
                    yield Token(index=index, finish_reason=reason)
                    return
        finally:
            if reason:
                self.stats.finished += 1
            else:
                self.stats.abandoned += 1

    async def GetStats(self, request: StatsRequest) -> Stats:
        return self.stats


app = LanguageModel.bind()
