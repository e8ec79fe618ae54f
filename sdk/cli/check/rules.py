"""Validation rules of a class's messages: those that do not work, with their lines, and those that nobody looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdk._contract.validation import rule_problem
from sdk._protos.descriptors import files_of_services
from sdk._validation.annotated import reachable, rules_of
from sdk._validation.broken_rules import VALIDATE_PROTO, BrokenRule, broken_rules_of_files
from sdk.errors import MissingExtraError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from sdk.cli.check.report import ClassReport

_RULE = "validation-rule"


def with_rule_problems(report: ClassReport) -> tuple[ClassReport, list[str]]:
    """Return a report with the problems of rules, whether the class checks its messages or not; and notes.

    Args:
        report: The report on a class.
    """
    messages = _messages(report)
    files = files_of_services(report.services)
    if all(file.name != VALIDATE_PROTO for file in files.file):
        return report, []
    try:
        broken = _broken(report, files, messages)
    except MissingExtraError as error:
        return report, [f"the validation rules of {report.name} were not checked: {error}"]
    problems = [problem for problem in report.problems if problem.rule != _RULE]
    problems += [rule_problem(report.name, each) for each in broken]
    return replace(report, problems=tuple(problems)), list(_unseen(messages.values()))


def _broken(report: ClassReport, files: Any, messages: dict[str, Descriptor]) -> list[BrokenRule]:
    protos = {each.file.name for each in messages.values()}
    found = broken_rules_of_files(files, protos, messages)
    if found:
        from sdk.cli.check.proto_lines import with_lines

        found = broken_rules_of_files(with_lines(files), protos, messages)
    return found


def _messages(report: ClassReport) -> dict[str, Descriptor]:
    """Return the messages of a class's services, and those in their fields, by full name."""
    methods = [method for service in report.services for method in service.methods]
    tops: list[Any] = [each.DESCRIPTOR for method in methods for each in (method.request, method.response)]
    return {name: message for top in tops for name, message in reachable(top).items()}


def _unseen(messages: Iterable[Descriptor]) -> Iterator[str]:
    """Yield a note for each place in some messages whose rules are never evaluated."""
    known = list(messages)
    for message in known:
        for field in message.fields:
            if field.message_type is not None and field.message_type.full_name == "google.protobuf.Any":
                yield f"{field.full_name} is a google.protobuf.Any: rules of the message in it are not checked"
    names = {message.full_name for message in known}
    extensions: dict[str, Any] = {
        extension.full_name: extension
        for file in {message.file.name: message.file for message in known}.values()
        for extension in file.extensions_by_name.values()
    }
    for name, extension in extensions.items():
        if extension.containing_type.full_name in names and rules_of(extension):
            yield f"{name} is an extension of {extension.containing_type.full_name}: its rules are not checked"
