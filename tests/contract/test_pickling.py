"""A decorated class of `__main__` is pickled by value for the replicas, together with its definition."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parent.parent.parent
GENERATED = REPO / "examples" / "guide"

WRITER = """
import sys
import cloudpickle
import grpc
import grpc.aio
import user_defined_protos_sdk
from sdk.deployment import grpc_deployment
from user_defined_protos_pb2 import ImageClass, ImageData
from user_defined_protos_sdk import ImageClassificationServiceBase

class Signing(grpc.aio.ServerInterceptor):
    def __init__(self, key):
        self.key = key

    async def intercept_service(self, continuation, details):
        return await continuation(details)

@grpc_deployment(compression=grpc.Compression.Gzip, interceptors=[Signing("secret"), Signing])
class Classifier(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData, grpc_context) -> ImageClass:
        return ImageClass(classes=["cat"])

if sys.argv[2] == "by value":
    cloudpickle.register_pickle_by_value(user_defined_protos_sdk)
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump((Classifier, Classifier.__grpc_definition__, user_defined_protos_sdk.USER_DEFINED_SERVICE), file)
"""
READER = """
import sys
import cloudpickle
with open(sys.argv[1], "rb") as file:
    cls, definition, service = cloudpickle.load(file)
by_value = sys.argv[2] == "by value"
assert ("user_defined_protos_sdk" in sys.modules) is not by_value
import asyncio
import user_defined_protos_sdk as generated
from user_defined_protos_pb2 import ImageData
assert service == generated.USER_DEFINED_SERVICE
assert service.file is generated.USER_DEFINED_SERVICE.file
stamp = cls.__grpc_definition__
assert stamp.shims == definition.shims and stamp.options == definition.options
assert stamp.interceptors[0].key == "secret"
assert stamp.interceptors[1] is type(stamp.interceptors[0])
assert stamp.compression.name == "Gzip"
assert stamp.services == (generated.IMAGE_CLASSIFICATION_SERVICE,)
assert by_value or stamp.shims == (generated.ImageClassificationServiceShim,)
(binding,) = stamp.shims[0].bindings(cls())
print(asyncio.run(binding.handler(ImageData(), grpc_context=None)).classes[0])
"""


def travel(folder: Path, how: str) -> str:
    script, pickled = folder / "script.py", folder / "class.pickle"
    output = ""
    for text in (WRITER, READER):
        script.write_text(text)
        done = subprocess.run(
            [sys.executable, script, pickled, how],
            env={"PYTHONPATH": f"{GENERATED}:{REPO}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        output = done.stdout
    return output


def test_class_of_main(tmp_path: Path) -> None:
    assert travel(tmp_path, "by reference") == "cat\n"


def test_generated_module_by_value(tmp_path: Path) -> None:
    assert travel(tmp_path, "by value") == "cat\n"
