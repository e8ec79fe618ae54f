"""The call that `sdk run` proposes."""

from __future__ import annotations

import json

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import Parse
from user_defined_protos_pb2 import DESCRIPTOR, UserDefinedMessage

from sdk._serve.example_call import example_call
from sdk._xds.snapshot import Application, Deployment, Snapshot

FILES = FileDescriptorSet()
DESCRIPTOR.CopyToProto(FILES.file.add())
GUIDE, IMAGES = "userdefinedprotos.UserDefinedService", "userdefinedprotos.ImageClassificationService"
SNAPSHOT = Snapshot(
    1,
    (
        Application("inner", (Deployment("Vault", ()),)),
        Application("guide", (Deployment("Vault", ()), Deployment("Guide", (GUIDE,), descriptors="d"))),
        Application("images", (Deployment("Classifier", (IMAGES,), descriptors="d"),)),
        Application("old", (Deployment("Unknown", (IMAGES,), descriptors="unknown"),)),
    ),
)


def fetch(digest: str) -> bytes | None:
    return FILES.SerializeToString() if digest == "d" else None


def test_it_is_a_unary_call_with_a_request_that_fits() -> None:
    found = example_call(SNAPSHOT, ["inner", "guide", "images"], fetch)
    assert found is not None
    application, method, request = found
    assert (application, method) == ("guide", f"{GUIDE}/__call__")
    assert json.loads(request) == {"name": "you", "origin": "text", "num": 1}
    assert Parse(request, UserDefinedMessage()).name == "you"


def test_only_the_applications_of_the_command_count() -> None:
    found = example_call(SNAPSHOT, ["images"], fetch)
    assert found == ("images", f"{IMAGES}/Predict", '{"url": "text", "filename": "text"}')


def test_there_is_none_without_a_service_or_its_descriptors() -> None:
    assert example_call(SNAPSHOT, ["inner", "old"], fetch) is None
