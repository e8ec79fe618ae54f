"""``sdk check``: whether classes fit the services of their proto files, without a cluster."""

from __future__ import annotations

import pkgutil
from collections.abc import Container, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import click

from sdk._contract import class_rules, locations
from sdk._contract.definition import collect_definition_errors, definition_of
from sdk._contract.implementations import generated_bases
from sdk._serve.deployed_classes import deployed_classes, is_application
from sdk.cli.check.report import ClassReport, Failure, Report
from sdk.cli.target import load_target
from sdk.deployment import Configured
from sdk.errors import ApplicationError, DefinitionError, Problem, SdkError


@click.command(
    epilog="\b\nExamples:\n"
    "  sdk check app\n"
    "  sdk check app:Greeter shop.app --strict\n"
    "  sdk check app --against ../main/protos\n"
    "  sdk check app --against localhost:9000/greeter\n"
    "  sdk check app --format github"
)
@click.argument("targets", metavar="MODULE[:NAME]…", nargs=-1, required=True)
@click.option("--strict", is_flag=True, help="Warnings are problems too: methods without annotations, lost data, JSON.")
@click.option(
    "--against",
    metavar="OTHER",
    default=None,
    help="Report what breaks clients of OTHER: a file of descriptors (protoc --descriptor_set_out, a buf image), a "
    "proto file or a folder of them, or a server with reflection, HOST:PORT[/APPLICATION].",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="`json` for scripts, `github` for annotations in GitHub Actions.",
)
@click.option("--json", "wants_json", is_flag=True, help="The same as `--format json`.")
def check(targets: tuple[str, ...], strict: bool, against: str | None, format_: str, wants_json: bool) -> None:
    """Check that the classes of MODULE fit the services of their proto files. Needs no cluster.

    NAME is a class, or what its `.bind()` returned; without it, every decorated class of the module is checked, and of
    the modules below it when it is a package without any.

    Exits with 0 when all fit, 1 when one has a problem or a module fails, 2 when there is nothing to check.
    """
    from sdk.cli.check import formats as check_formats
    from sdk.cli.main import exit_code

    classes: list[ClassReport] = []
    failures: list[Failure] = []
    for target in dict.fromkeys(targets):
        look = _Look(target)
        seen = {report.cls for report in classes if report.cls is not None}
        classes += look.reports(strict, seen)
        failures += [Failure(what, str(error), exit_code(error)) for what, error in look.failures]
    comparison = None
    services = {service.full_name: service for report in classes for service in report.services}
    served = {service.full_name for report in classes for service in report.offered}
    if against is not None and services:
        from sdk.cli.check.against import compare_against

        try:
            comparison = compare_against(list(services.values()), against, strict, served=served)
        except SdkError as error:
            failures.append(Failure(against, str(error), exit_code(error)))
    report = Report(tuple(classes), tuple(failures), comparison, strict)
    check_formats.show(report, "json" if wants_json else format_)
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


class _Look:
    """What one target names: its classes, and what could not be loaded.

    Args:
        target: ``"app"``, ``"app:Greeter"`` or ``"package"``.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._classes: dict[type, None] = {}
        self._refused: list[DefinitionError] = []
        self.failures: list[tuple[str, SdkError]] = []
        # One class that does not fit must not hide those below it.
        with collect_definition_errors() as self._unfit:
            self._look(target)
        # Also those that the target does not name: on a cluster the import ends there.
        self._classes.update(dict.fromkeys(self._unfit))

    def reports(self, strict: bool, seen: Container[type]) -> list[ClassReport]:
        """Return what is found out about the classes that were not seen yet."""
        refused = [ClassReport(each.class_name, self._target, None, "", None, each.problems) for each in self._refused]
        return [*(self._report(cls, strict) for cls in self._classes if cls not in seen), *refused]

    def _look(self, target: str) -> None:
        loaded = self._load(target)
        if loaded is None:
            return
        module, found = loaded
        if found is not None:
            self._note(_classes_of(found))
        else:
            self._note(_classes_of_module(module))
            for name in _names_below(module) if not self._classes else ():
                below = self._load(name)
                self._note(_classes_of_module(below[0]) if below is not None else ())
        if not (self._classes or self._unfit or self._refused or self.failures):
            self.failures.append((target, ApplicationError(_nothing(target, module, found))))

    def _load(self, target: str) -> tuple[ModuleType, object | None] | None:
        try:
            return load_target(target)
        except DefinitionError as error:  # of what was bound and is not decorated
            self._refused.append(error)
        except SdkError as error:
            self.failures.append((target, error))
        return None

    def _note(self, classes: Iterable[type]) -> None:
        self._classes.update(dict.fromkeys(classes))

    def _report(self, cls: type, strict: bool) -> ClassReport:
        return report_of(cls, self._target, strict, self._unfit.get(cls))


def report_of(cls: type, target: str, strict: bool, known: Sequence[Problem] | None = None) -> ClassReport:
    """Return what is found out about a class.

    Args:
        cls: The class.
        target: What was named on the command line.
        strict: Whether methods without annotations are problems.
        known: Its problems, when the decorator has found some.
    """
    definition, problems = definition_of(cls), list(known or class_rules.check_class(cls))
    if definition is None and not problems:
        message, remedy = "the class is not bound to its service", "put @grpc_deployment above it"
        problems.append(Problem("not-decorated", cls.__name__, message, remedy, code_location=locations.of_class(cls)))
    if strict and not problems:
        problems += class_rules.find_unannotated(cls)
    return ClassReport(cls.__name__, target, cls, locations.of_class(cls), definition, tuple(problems))


def _names_below(package: ModuleType) -> Iterator[str]:
    """Yield the modules of a package, all that can hold a class: no generated ones, and none that are programs."""
    # Each is loaded before its own modules are looked for, and tells then why it can't be.
    for info in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{package.__name__}.", lambda _: None):
        if not info.name.endswith(("_pb2", "_pb2_grpc", "_sdk", ".__main__")):
            yield info.name


def _classes_of_module(module: ModuleType) -> list[type]:
    found: dict[type, None] = {}
    for value in list(vars(module).values()):
        if not isinstance(value, type) or definition_of(value) is not None:
            found.update(dict.fromkeys(_classes_of(value)))
    return list(found)


def _classes_of(found: Any) -> Sequence[type]:
    """Return the class that was named, or the decorated classes that an application deploys."""
    if isinstance(found, type):
        return (found,)
    if isinstance(found, Configured):
        return _classes_of(found.cls)
    return deployed_classes(found) if is_application(found) else ()


def _nothing(target: str, module: ModuleType, found: object) -> str:
    if is_application(found):
        return f"{target} deploys no class that is decorated with @grpc_deployment"
    if found is not None:
        return f"{target} is {type(found).__name__}; give a class, or what its `.bind()` returned"
    bare = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and generated_bases(value)
    ]
    hint = f"; put it above {', '.join(bare)}" if bare else ""
    return f"Module {module.__name__!r} has no class that is decorated with @grpc_deployment{hint}"
