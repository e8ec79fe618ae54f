"""Reads the examples of `docs/reference/checks.md` and computes their outputs.

``python tests/contract/checks_document.py`` rewrites the outputs in the document; review the diff.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from sdk import grpc_deployment
from sdk._contract import class_rules
from sdk._contract.definition import definition_of
from sdk._protos.breaking.services import compare
from sdk.errors import DefinitionError, Problem
from tests.contract.greet_code import DOWN, UNARY, UP, HelloReply, HelloRequest, OtherReply, make_base
from tests.support.proto_text import descriptors

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "checks.md"
# A heading, optional prose, the example, and its output.
EXAMPLE = re.compile(
    r"^### (?P<rule>[a-z-]+)\n(?P<words>(?:(?!^#).)*?)```(?P<kind>python|diff)\n(?P<text>.*?)```\n"
    r"(?P<output>\n```text\n(?P<given>.*?)```\n)?",
    re.MULTILINE | re.DOTALL,
)


class Example(NamedTuple):
    rule: str
    kind: str
    text: str
    given: str


def examples() -> list[Example]:
    """Return the examples of the document."""
    found = EXAMPLE.finditer(DOCUMENT.read_text())
    return [Example(each["rule"], each["kind"], each["text"], each["given"] or "") for each in found]


class SyncInterceptor(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return continuation(handler_call_details)


NAMES = {
    "ABC": ABC,
    "abstractmethod": abstractmethod,
    "functools": functools,
    "grpc_deployment": grpc_deployment,
    "HelloReply": HelloReply,
    "HelloRequest": HelloRequest,
    "SyncInterceptor": SyncInterceptor,
    "GreeterBase": make_base("Greeter", ("SayHello", UNARY), line=1),
    "CounterBase": make_base("Counter", ("Count", DOWN), line=4),
    "CollectorBase": make_base("Collector", ("Collect", UP), line=7),
    "LoudGreeterBase": make_base("LoudGreeter", ("SayHello", UNARY, HelloRequest, OtherReply), line=10),
    "MonitorBase": make_base("Monitor", ("check_health", UNARY), line=13),
}


def output_of(example: Example) -> str:
    """Return the output of `sdk check` for an example."""
    return _problems(example) if example.kind == "python" else _changes(example)


def _problems(example: Example) -> str:
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.py"
        path.write_text(example.text)
        os.chdir(folder)
        spec = importlib.util.spec_from_file_location("app", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        vars(module).update(NAMES)
        sys.modules["app"] = module
        try:
            spec.loader.exec_module(module)
            (cls,) = (value for value in vars(module).values() if getattr(value, "__module__", "") == "app")
            problems = class_rules.check_class(cls)
            if example.rule == "unannotated":
                problems = class_rules.find_unannotated(cls)
            elif example.rule == "not-decorated" and definition_of(cls) is None:
                problems = [_undecorated(cls)]
        except DefinitionError as error:
            problems = list(error.problems)
        finally:
            del sys.modules["app"]
            os.chdir(here)
    return "".join(f"{problem} [{problem.rule}]\n" for problem in problems)


def _undecorated(cls: type) -> Problem:
    from sdk.cli.check.command import check_class

    (problem,) = check_class(cls, "app", strict=False).problems
    return problem


def _changes(example: Example) -> str:
    versions = []
    for other in ("+", "-"):
        text = "".join(line[1:] for line in example.text.splitlines(keepends=True) if line[0] != other)
        rest = "" if "syntax" in text or "edition" in text else 'syntax = "proto3"; '
        # Added before and after the text of the example, on no new lines, so that its lines keep their numbers.
        start = re.match(r"(syntax|edition)[^\n]*", text)
        head, text = (start[0], text[start.end() :]) if start else ("", text)
        for name, definition in _USUAL.items():
            if not re.search(rf"(message|service) {name}\b", example.text):
                text += f"{definition}\n"
        if "message HelloReply" in example.text and "message HelloReply" not in text:
            text += "message HelloReply { string text = 1; }\n"
        versions.append(descriptors(f"{rest}{head} package greet; {text}", "greet.proto"))
    old, new = versions
    found = compare(old, new, ["greet.Greeter"], json=True)
    return "".join(f"{change.severity}: {change} [{change.rule}]\n" for change in found)


_USUAL = {
    "Greeter": "service Greeter { rpc SayHello(HelloRequest) returns (HelloReply); }",
    "HelloRequest": "message HelloRequest {}",
    "HelloReply": "message HelloReply {}",
}


def filled() -> str:
    """Return the document with the current outputs of its examples."""

    def fill(match: re.Match[str]) -> str:
        output = output_of(Example(match["rule"], match["kind"], match["text"], ""))
        head = match[0].removesuffix(match["output"] or "")
        return f"{head}\n```text\n{output}```\n"

    return EXAMPLE.sub(fill, DOCUMENT.read_text())


if __name__ == "__main__":
    DOCUMENT.write_text(filled())
