"""The table of class shapes in `docs/reference/checks.md`: what each check takes, and what a real call does.

``python -m tests.contract.shapes.shape_table`` writes it again; review the diff. The rows of PEP 695 need Python 3.12.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc

import sdk.testing
from sdk import grpc_deployment
from sdk._contract.definition import collect_definition_errors
from tests.contract.checks_document import DOCUMENT
from tests.support.cluster import ROOT, generate
from tests.support.type_checkers import mypy

HERE = Path(__file__).parent
FILES = ["shapes.py", *(["pep695_shapes.py"] if sys.version_info >= (3, 12) else [])]
SECTION = re.compile(r"(?<=^## Class shapes\n)(?P<words>.*?)(?P<tables>^### .*?)?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
HEAD = "| shape | `sdk check` | mypy | pyright | call | why they differ |\n| --- | --- | --- | --- | --- | --- |\n"
FITS = "fits"

# The messages of a call, and those of its answer.
EXCHANGES = {
    "One": ("Get", ["x"], ["x"]),
    "Lister": ("List", ["x"], ["x", "x"]),
    "Putter": ("Put", ["x", "y"], ["xy"]),
    "Chatter": ("Chat", ["x", "y"], ["x", "y"]),
}


class Shape(NamedTuple):
    """A class or a function that returns one, with the lines of its source."""

    file: str
    name: str
    section: str
    text: str
    why: str
    lines: range


class Row(NamedTuple):
    """The verdicts on a shape."""

    shape: Shape
    sdk: str
    mypy: str
    pyright: str
    call: str

    @property
    def agrees(self) -> bool:
        """True if all checks take it and it serves, or none does."""
        return len({self.sdk == FITS, self.mypy == FITS, self.pyright == FITS, self.call == "serves"}) == 1


def read_shapes() -> list[Shape]:
    """Return the shapes of the files, in order."""
    return [shape for file in FILES for shape in _shapes_of(file)]


def _shapes_of(file: str) -> Iterator[Shape]:
    source = (HERE / file).read_text()
    headings = {
        number: line.removeprefix("# == ") for number, line in enumerate(source.splitlines(), 1) if line[:5] == "# == "
    }
    for node in ast.parse(source).body:
        text = ast.get_docstring(node) if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else None
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and text is not None:
            section = [heading for line, heading in headings.items() if line < node.lineno][-1]
            shape, _, why = text.partition("\n\n")
            end = node.end_lineno or node.lineno
            yield Shape(file, node.name, section, shape, " ".join(why.split()), range(node.lineno, end + 1))


def rows() -> list[Row]:
    """Return the rows of this version of Python: each type checker runs once, and all shapes are served together."""
    shapes = read_shapes()
    generated = generate(HERE / "protos")
    sys.path[:0] = [str(HERE), str(generated)]
    try:
        modules = {file: importlib.import_module(file.removesuffix(".py")) for file in FILES}
        classes = {shape: _class_of(vars(modules[shape.file])[shape.name]) for shape in shapes}
        by_sdk, applications = _decorated(classes)
        by_call = _calls(applications)
    finally:
        del sys.path[:2]
    by_mypy, by_pyright = _of_mypy(shapes, generated), _of_pyright(shapes, generated)
    return [
        Row(
            shape,
            by_sdk[shape],
            by_mypy.get(shape, FITS),
            by_pyright.get(shape, FITS),
            by_call.get(shape, "no instance"),
        )
        for shape in shapes
    ]


def _class_of(shape: Any) -> type:
    cls: type = shape if isinstance(shape, type) else shape()
    return cls


def _decorated(classes: Mapping[Shape, Any]) -> tuple[dict[Shape, str], dict[Shape, tuple[str, Any]]]:
    """Return what the decorator says of each class, and its first service and application, even if it does not fit."""
    said, applications = {}, {}
    for shape, cls in classes.items():
        with collect_definition_errors() as problems:
            decorated = grpc_deployment(cls)
        said[shape] = ", ".join(dict.fromkeys(problem.rule for problem in problems.get(cls, ()))) or FITS
        services = decorated.__grpc_definition__.services
        if services and not inspect.isabstract(cls):
            applications[shape] = services[0].name, decorated.bind()
    return said, applications


def _calls(applications: Mapping[Shape, tuple[str, Any]]) -> dict[Shape, str]:
    with sdk.testing.serve({shape.name: application for shape, (_, application) in applications.items()}) as server:
        channel = server.channel()
        return {shape: _call(channel, shape.name, service) for shape, (service, _) in applications.items()}


def _call(channel: grpc.Channel, application: str, service: str) -> str:
    from shapes_pb2 import Ask, Reply

    method, asked, expected = EXCHANGES[service]
    call: Any = channel.stream_stream(
        f"/shapes.{service}/{method}",
        request_serializer=Ask.SerializeToString,
        response_deserializer=Reply.FromString,
    )(iter([Ask(text=text) for text in asked]), metadata=[("application", application)], timeout=60)
    try:
        answered = [reply.text for reply in call]
    except grpc.RpcError:
        return str(call.code().name)
    return "serves" if answered == expected else "wrong data"


def _of_mypy(shapes: list[Shape], generated: Path) -> dict[Shape, str]:
    version = [] if len(FILES) == 1 else ["--python-version=3.12"]
    done = mypy([HERE / file for file in FILES], [generated, ROOT], "--output=json", *version)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return _by_shape(shapes, ((row["file"], row["line"], row["code"]) for row in found if row["severity"] == "error"))


def _of_pyright(shapes: list[Shape], generated: Path) -> dict[Shape, str]:
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "include": [os.path.relpath(HERE / file, folder) for file in FILES],  # pyright ignores absolute paths here
            "extraPaths": [str(generated), str(ROOT)],
            "pythonVersion": "3.12",
            "typeCheckingMode": "standard",
        }
        Path(folder, "pyrightconfig.json").write_text(json.dumps(config))
        done = subprocess.run(
            [sys.executable, "-m", "pyright", "--outputjson", f"--project={folder}", f"--pythonpath={sys.executable}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    found = [row for row in report["generalDiagnostics"] if row["severity"] == "error"]
    places = ((row["file"], row["range"]["start"]["line"] + 1, row.get("rule", "syntax")) for row in found)
    return _by_shape(shapes, places)


def _by_shape(shapes: list[Shape], found: Iterator[tuple[str, int, str]]) -> dict[Shape, str]:
    """Return the codes of the findings in the lines of each shape; a finding elsewhere is an error."""
    codes: dict[Shape, dict[str, None]] = defaultdict(dict)
    for file, line, code in found:
        (shape,) = [each for each in shapes if each.file == Path(file).name and line in each.lines] or [None]
        assert shape is not None, f"{file}:{line}: {code}"
        codes[shape][code] = None
    return {shape: ", ".join(each) for shape, each in codes.items()}


def tables(rows: list[Row]) -> dict[str, str]:
    """Return the table of each section."""
    sections: dict[str, str] = {}
    for row in rows:
        shape = row.shape
        cells = [shape.text, row.sdk, row.mypy, row.pyright, row.call, shape.why]
        line = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        sections[shape.section] = sections.get(shape.section, HEAD) + line
    return sections


def documented() -> dict[str, str]:
    """Return the table of each section in the document."""
    found = SECTION.search(DOCUMENT.read_text())
    assert found is not None
    parts = (found["tables"] or "").split("### ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2].strip("\n") + "\n" for part in parts}


def filled(rows: list[Row]) -> str:
    """Return the document with the tables; those that need a newer Python stay as they are."""
    sections = documented() | tables(rows)
    text = "\n".join(f"### {heading}\n\n{table}" for heading, table in sections.items())
    return SECTION.sub(lambda found: f"{found['words'].rstrip()}\n\n{text}\n", DOCUMENT.read_text()).rstrip() + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(filled(rows()))
