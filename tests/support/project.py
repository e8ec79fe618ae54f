"""A user's project in a fresh folder, and the installed ``sdk codegen`` in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.command_server import command_server

PROTO = (
    'syntax = "proto3";\npackage greet;\nmessage Hello {}\nservice Greeter { rpc SayHello(Hello) returns (Hello); }\n'
)
# What becomes of it.
FILES = ["greet_pb2.py", "greet_pb2.pyi", "greet_pb2_grpc.py", "greet_pb2_grpc.pyi", "greet_sdk.py"]

MANIFEST = ".sdk-codegen.json"
CACHE = ".sdk_codegen_cache"

Sdk = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the current one, with a proto in ``protos``."""
    monkeypatch.chdir(tmp_path)
    put({"protos/greet.proto": PROTO})
    return tmp_path


@pytest.fixture
def sdk(project: Path) -> Sdk:
    """Run ``sdk codegen`` in the project."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return command_server().run(["codegen", *arguments], project, os.environ | environment)

    return run


def put(files: Mapping[str, str]) -> None:
    """Write files by their path."""
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)


def message(name: str, imports: str = "", fields: str = "") -> str:
    """Return a proto with one message."""
    return f'syntax = "proto3";\npackage {name};\n{imports}message {name.title()} {{ {fields} }}\n'


def content(folder: str) -> dict[str, bytes]:
    """Return every file below a folder but the manifest and the cache."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != MANIFEST and path.parent.name != CACHE
    }


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """Return how a command ended: its code, and all that it said."""
    return done.returncode, done.stdout, done.stderr
