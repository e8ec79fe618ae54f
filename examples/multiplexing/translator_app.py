"""Many models, few in memory: each call reaches the replica that has loaded its model.

Run it with ``sdk run translator_app:app``.
"""

import grpc
from ray import serve
from translator_pb2 import Text, Translation
from translator_sdk import TranslatorBase

from sdk import RpcError, SharedModel, grpc_deployment

# In place of files with weights.
DICTIONARIES = {
    "de": {"good": "guten", "morning": "Morgen", "world": "Welt", "hello": "hallo"},
    "fr": {"good": "bon", "morning": "matin", "world": "monde", "hello": "bonjour"},
    "sv": {"good": "god", "morning": "morgon", "world": "värld", "hello": "hej"},
}


class Model:
    """Translates word by word; a real one holds memory of an accelerator until it is closed."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.dictionary = DICTIONARIES[language]

    def translate(self, text: str) -> str:
        """Translate the words of a text that the model knows."""
        return " ".join(self.dictionary.get(word.lower(), word) for word in text.split())

    def close(self) -> None:
        """Release the model's memory."""
        self.dictionary = {}


@grpc_deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=100)
class Translator(TranslatorBase):
    """Holds at most two models at a time."""

    def __init__(self) -> None:
        self.loads = 0

    # Ray Serve caches the result, calls this only for a model that the replica has not loaded, and evicts the least
    # recently used one, even while calls use it: so it is shared, and closed after the last of them.
    @serve.multiplexed(max_num_models_per_replica=2)  # type: ignore[untyped-decorator]  # Ray's decorator has no types
    async def get_model(self, model_id: str) -> SharedModel[Model]:
        """Load a model."""
        if model_id not in DICTIONARIES:
            raise RpcError(grpc.StatusCode.NOT_FOUND, f"no model {model_id!r}; there are {', '.join(DICTIONARIES)}")
        self.loads += 1
        return SharedModel(Model(model_id), close=Model.close)

    async def Translate(self, request: Text) -> Translation:
        model_id = serve.get_multiplexed_model_id()
        if not model_id:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "name a model: metadata multiplexed_model_id")
        shared: SharedModel[Model] = await self.get_model(model_id)  # pyright: ignore[reportCallIssue]  # misread
        async with shared as model:
            text = model.translate(request.text)
        replica = serve.get_replica_context().replica_tag
        return Translation(text=text, model=model_id, replica=replica, loads=self.loads)


app = Translator.bind()
