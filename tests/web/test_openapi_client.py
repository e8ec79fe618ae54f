"""A client that openapi-python-client has generated from our document calls the service."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sdk.testing
from tests.web.http_client import ask

GENERATOR = Path(sys.executable).with_name("openapi-python-client")
# Of streams, this generator knows no content-type.
IGNORED = "Unsupported content type application/x-ndjson"


@pytest.fixture(scope="module")
def generated(
    server: sdk.testing.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, subprocess.CompletedProcess[str]]]:
    folder = Path(tmp_path_factory.mktemp("openapi"))
    (folder / "openapi.json").write_bytes(ask(server, "/openapi.json", None).body)
    (folder / "config.yml").write_text("post_hooks: []\n")
    arguments = ["generate", "--path", "openapi.json", "--config", "config.yml", "--meta", "none"]
    done = subprocess.run(
        [GENERATOR, *arguments, "--output-path", "chat_client"], cwd=folder, capture_output=True, text=True, check=False
    )
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("chat_client"), done
    finally:
        sys.path.remove(str(folder))


def test_the_generator_takes_the_whole_document(
    generated: tuple[Any, subprocess.CompletedProcess[str]],
) -> None:
    _, done = generated
    assert done.returncode == 0, done.stdout + done.stderr
    problems = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("ERROR", "Incorrect"))]
    assert not problems


def test_calls_of_the_generated_client(
    server: sdk.testing.Server, generated: tuple[Any, subprocess.CompletedProcess[str]]
) -> None:
    package, _ = generated
    calls, models = "chat_client.api.sdk_web_chat", importlib.import_module("chat_client.models")
    with package.Client(base_url=f"http://{server.target}") as client:
        say = importlib.import_module(f"{calls}.sdk_web_chat_say")
        heard = say.sync(client=client, body=models.SdkWebSaid(text="hé", author=models.SdkWebAuthor(number="5")))
        assert (heard.text, heard.request.author.number) == ("hé", "5")
        error = say.sync(client=client, body=models.SdkWebSaid(code=9, has_detail=True))
        assert (error.code, error.message) == ("failed_precondition", "ends with 9 — ü")
        assert error.details[0].type_ == "google.rpc.RetryInfo"
        put = importlib.import_module(f"{calls}.sdk_web_chat_say_3")
        answer = put.sync(author_name="ann", text="x", client=client, body=models.SdkWebAuthor(number="3"), times=2)
        assert (answer.text, answer.request.author.name, answer.request.times) == ("x", "ann", 2)
