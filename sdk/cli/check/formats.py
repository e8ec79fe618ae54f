"""Formats of ``sdk check``: text, a tree and a table for people, JSON for scripts, annotations for GitHub Actions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen.console import count, show_error
from sdk._contract import locations
from sdk._contract.class_rules import unwritten_methods
from sdk._contract.signature_rules import format_rpc

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sdk._contract.definition import Definition
    from sdk.cli.check.missing_methods import Written
    from sdk.cli.check.report import CheckReport, ClassReport, VersionComparison
    from sdk.errors import Change, Problem

#: Version of the JSON document; it increases when a key is removed or changes its meaning.
JSON_VERSION = 1
_MISSING = (
    "note: `sdk check --fix` writes the methods that a class lacks; with @grpc_deployment(partial=True) their calls "
    "end with UNIMPLEMENTED"
)


def show(report: CheckReport, format_: str) -> None:
    """Print a report.

    Args:
        report: The report.
        format_: ``"text"``, ``"json"``, ``"github"`` or ``"table"``.
    """
    if format_ == "json":
        click.echo(json.dumps(as_json(report), indent=2, ensure_ascii=False))
        return
    if format_ in ("github", "table"):
        lines = list(as_github(report) if format_ == "github" else as_table(report))
        if lines:
            click.echo("\n".join(lines))
        return
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        for tree in _trees(report):
            console.print(tree)
    elif report.classes or report.comparison is not None:
        click.echo("\n".join(_texts(report)))
    for changed in report.changed_protos:
        click.echo(f"warning: {changed}", err=True)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    for failure in report.failures:
        show_error(failure.message)
    if any(each.problems and each.cls is not None and unwritten_methods(each.cls) for each in report.classes):
        click.echo(_MISSING, err=True)


# -- JSON -------------------------------------------------------------------------------------


def as_json(report: CheckReport) -> dict[str, Any]:
    """Return a report as JSON, which ``docs/checks.md`` documents."""
    comparison = report.comparison
    return {
        "version": JSON_VERSION,
        "strict": report.strict,
        "classes": [
            {
                "name": each.name,
                "target": each.target,
                "fits": not each.problems,
                "services": [service.full_name for service in each.services],
                "unimplemented": list(each.unimplemented),
                "code": _place(each.place),
            }
            for each in report.classes
        ],
        "problems": [_problem(problem) for each in report.classes for problem in each.problems],
        "against": None
        if comparison is None
        else {
            "other": comparison.other,
            "services": list(comparison.services),
            "note": comparison.note,
            "changes": [_change(change) for change in comparison.changes],
        },
        "written": [
            {
                "class": each.cls.__name__,
                "methods": [method.python_name for method in each.methods],
                "code": _place(each.place),
            }
            for each in report.written
        ],
        "changed_protos": [{"path": each.path, "message": str(each)} for each in report.changed_protos],
        "notes": list(report.notes),
        "failures": [{"target": failure.target, "message": failure.message} for failure in report.failures],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    class_name, _, rpc = problem.subject.partition(".")
    return {
        "rule": problem.rule,
        "severity": problem.severity,
        "class": class_name.partition(",")[0],
        "rpc": rpc or None,
        "message": problem.message,
        "remedy": problem.remedy,
        "code": _place(problem.code_location),
        "proto": _place(problem.proto_location),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "rule": change.rule,
        "severity": change.severity,
        "path": change.path,
        "message": change.message,
        "remedy": change.remedy,
        "old": change.old or None,
        "new": change.new or None,
        "proto": _place(change.proto_location),
    }


def _place(location: str) -> dict[str, Any] | None:
    file, _, line = location.rpartition(":")
    if not location:
        return None
    return {"file": file, "line": int(line)} if file and line.isdigit() else {"file": location, "line": None}


# -- GitHub Actions ---------------------------------------------------------------------------


def as_github(report: CheckReport) -> Iterator[str]:
    """Yield the workflow commands that annotate the lines of a pull request.

    See https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands.
    """
    for each in report.classes:
        for problem in each.problems:
            where = f" ({problem.proto_location})" if problem.proto_location else ""
            text = f"{problem.subject}: {problem.message}{where} → {problem.remedy}"
            yield _annotation(problem.severity, problem.code_location, problem.rule, text)
    comparison = report.comparison
    for change in comparison.changes if comparison is not None else ():
        yield _annotation(change.severity, change.proto_location, change.rule, str(change))
    if comparison is not None and comparison.note:
        yield _annotation("notice", "", "nothing-to-compare", comparison.note)
    for changed in report.changed_protos:
        yield _annotation("error" if report.strict else "warning", f"{changed.path}:1", "changed-proto", str(changed))
    for note in report.notes:
        yield _annotation("notice", "", "not-checked", note)
    for failure in report.failures:
        yield _annotation("error", "", "sdk check", failure.message)


def _annotation(level: str, location: str, title: str, text: str) -> str:
    place = _place(location)
    properties = {"title": title}
    file = _in_repository(place["file"]) if place is not None else None
    if place is not None and file is not None:
        line = {"line": str(place["line"])} if place["line"] else {}
        properties = {"file": file, **line, "title": title}
    shown = ",".join(f"{key}={_escaped(value, ':,')}" for key, value in properties.items())
    return f"::{level} {shown}::{_escaped(text)}"


def _in_repository(file: str) -> str | None:
    """Return the path of a file from the top of the repository, as annotations need it; None if it is not in there."""
    top = Path(os.environ.get("GITHUB_WORKSPACE") or os.getcwd()).resolve()
    # A proto has its name for protoc: relative to a folder that is not known here.
    path = locations.find_proto(file)
    if path is None or not path.resolve().is_relative_to(top):
        return None
    return path.resolve().relative_to(top).as_posix()


def _escaped(text: str, more: str = "") -> str:
    # "%" first: the escape sequences of the others contain it.
    for character in ("%", "\r", "\n", *more):
        text = text.replace(character, f"%{ord(character):02X}")
    return text


# -- a table -------------------------------------------------------------------------------------


def as_table(report: CheckReport) -> Iterator[str]:
    """Yield the lines of a table in Markdown, for a summary or a comment; without findings, one line that says so.

    See https://github.github.com/gfm/#tables-extension-.
    """
    rows = [
        (problem.severity, problem.rule, problem.subject, f"{problem.message} → {problem.remedy}", place)
        for each in report.classes
        for problem in each.problems
        for place in [problem.code_location or problem.proto_location]
    ]
    changes = report.comparison.changes if report.comparison is not None else ()
    rows += [(c.severity, c.rule, c.path, f"{c.message} → {c.remedy}", c.proto_location) for c in changes]
    rows += [("warning", "changed-proto", each.path, each.reason, "") for each in report.changed_protos]
    rows += [("error", "sdk check", failure.target, failure.message, "") for failure in report.failures]
    if report.comparison is not None:
        yield from (_against(report.comparison), "")
    if not rows:
        yield "No problems."
        return
    yield "| severity | rule | element | finding | place |"
    yield "| --- | --- | --- | --- | --- |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |"


# -- people -----------------------------------------------------------------------------------


def _headline(report: ClassReport) -> str:
    if not report.problems:
        return f"{report.name}: fits"
    return f"{report.name}: {count(len(report.problems), 'problem')}"


def _against(comparison: VersionComparison) -> str:
    if comparison.note:
        return f"Against {comparison.other}: {comparison.note}"
    severities = [change.severity for change in comparison.changes]
    errors, warnings = severities.count("error"), severities.count("warning")
    breaks = f"{count(errors, 'change')} {'breaks' if errors == 1 else 'break'} clients"
    parts = [breaks if errors else "nothing breaks clients", *([count(warnings, "warning")] if warnings else [])]
    return f"Against {comparison.other}: {', '.join(parts)}"


def _services(definition: Definition | None) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yield each service, with its place, and its methods: the proto's spelling, and whether the class has it."""
    if definition is None:
        return
    for service in definition.services:
        title = f"{service.full_name} ({locations.of_proto(service, service.line)})"
        yield title, [(f"rpc {format_rpc(rpc)}", rpc.path not in definition.unimplemented) for rpc in service.methods]


def _written(written: Written) -> str:
    methods = ", ".join(method.python_name for method in written.methods)
    return f"{written.cls.__name__}: wrote {methods} ({written.place})"


def _texts(report: CheckReport) -> Iterator[str]:
    yield from map(_written, report.written)
    for each in report.classes:
        yield _headline(each) + (f" ({each.place})" if each.place else "")
        for problem in each.problems:
            yield f"  {problem} [{problem.rule}]"
        for title, methods in _services(each.definition) if not each.problems else ():
            yield f"  {title}"
            yield from (f"    ok {rpc}" if is_there else f"    {rpc}: UNIMPLEMENTED" for rpc, is_there in methods)
    if report.comparison is not None:
        yield _against(report.comparison)
        for change in report.comparison.changes:
            yield f"  {change.severity}: {change} [{change.rule}]"


def _trees(report: CheckReport) -> Iterator[RenderableType]:
    from rich.text import Text
    from rich.tree import Tree

    for written in report.written:
        yield Text(_written(written), "green")
    for each in report.classes:
        style = "bold red" if each.problems else "bold green"
        tree = Tree(Text.assemble((_headline(each), style), "  ", (each.place, "dim")), guide_style="dim")
        for problem in each.problems:
            branch = tree.add(Text.assemble((problem.subject, "bold"), "  ", (problem.rule, "red")))
            _add(branch, problem, (problem.code_location, problem.proto_location))
        for title, methods in _services(each.definition) if not each.problems else ():
            branch = tree.add(Text(title))
            for rpc, is_there in methods:
                mark = ("✓ ", "green") if is_there else ("UNIMPLEMENTED ", "yellow")
                branch.add(Text.assemble(mark, rpc))
        yield tree
    if report.comparison is not None:
        colours = {"error": "red", "warning": "yellow"}
        severities = {change.severity for change in report.comparison.changes}
        style = next((f"bold {colour}" for name, colour in colours.items() if name in severities), "bold green")
        tree = Tree(Text(_against(report.comparison), style), guide_style="dim")
        for change in report.comparison.changes:
            rule = (f"{change.severity}: {change.rule}", colours[change.severity])
            branch = tree.add(Text.assemble((change.path, "bold"), "  ", rule))
            _add(branch, change, (change.proto_location,))
        yield tree


def _add(branch: Any, found: Problem | Change, where: tuple[str, ...]) -> None:
    from rich.text import Text

    branch.add(Text(found.message))
    branch.add(Text(found.remedy, style="green"))
    if any(where):
        branch.add(Text(", ".join(filter(None, where)), style="dim"))
