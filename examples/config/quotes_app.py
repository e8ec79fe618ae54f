"""Applications that a Serve config file builds: ``quotes_app:build`` with arguments, ``quotes_app:app`` without."""

from typing import Any

import grpc
from pydantic import BaseModel
from quotes_pb2 import PickRequest, Quote
from quotes_sdk import QuotesBase

from sdk import RpcError, grpc_deployment

QUOTES = {
    "en": ["Make haste slowly.", "Measure twice, cut once."],
    "de": ["Eile mit Weile.", "Erst wägen, dann wagen."],
}


class Settings(BaseModel):
    """The ``args`` of the file. A wrong name or type is refused before anything starts."""

    language: str
    mark: str = ""


@grpc_deployment
class Quotes(QuotesBase):
    """Quotes in one language. The config file sets its options by the name of the deployment."""

    def __init__(self, language: str, mark: str = "") -> None:
        self.language = language
        self.mark = mark

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply the file's ``user_config``, which may change while the replica runs."""
        self.mark = user_config.get("mark", self.mark)

    async def Pick(self, request: PickRequest) -> Quote:
        quotes = QUOTES[self.language]
        if not 0 <= request.number < len(quotes):
            raise RpcError(grpc.StatusCode.OUT_OF_RANGE, f"there are {len(quotes)} quotes")
        return Quote(text=quotes[request.number] + self.mark, language=self.language)


def build(args: Settings) -> Any:
    """Return an application with the arguments of the file."""
    return Quotes.bind(args.language, args.mark)


app = Quotes.bind("en")
