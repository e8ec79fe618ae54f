"""``sdk check``: check classes against the services of their protos, without a cluster."""

from __future__ import annotations

import pkgutil
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from sdk._backend import backend
from sdk._contract import class_rules, locations
from sdk._contract.definition import collect_definition_errors, definition_of
from sdk._contract.implementations import generated_bases
from sdk._serve.deployed_classes import deployed_classes, is_application
from sdk._serve.missing_services import explain_missing_services
from sdk.cli.check.report import CheckReport, ClassReport, TargetFailure
from sdk.cli.module_completion import complete_module
from sdk.cli.target import load_target, traceback_option
from sdk.deployment import Configured
from sdk.errors import ApplicationError, DefinitionError, Problem, SdkError

if TYPE_CHECKING:
    from sdk.cli.check.missing_methods import Written

_WITHOUT_RAY = (
    "note: the values of deployment options were not checked, because Ray is not installed: "
    "pip install 'ray-grpc-sdk[serve]'"
)


@click.command(
    epilog="\b\nExamples:\n"
    "  sdk check app\n"
    "  sdk check app:Greeter shop.app --strict\n"
    "  sdk check app --against git:main:protos\n"
    "  sdk check app --against localhost:9000/greeter\n"
    "  sdk check app --fix\n"
    "  sdk check app --format github"
)
@click.argument("targets", metavar="MODULE[:NAME]…", nargs=-1, required=True, shell_complete=complete_module)
@click.option(
    "--strict", is_flag=True, help="Treat warnings as problems: methods without annotations, lost data, JSON."
)
@click.option(
    "--against",
    metavar="OTHER",
    default=None,
    help="Report changes that break clients of OTHER: a file of descriptors (protoc --descriptor_set_out, a buf "
    "image), a proto file or a folder of them, also of a commit, git:REF:PATH, or a server with reflection, "
    "HOST:PORT[/APPLICATION].",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "github", "table"]),
    default="text",
    show_default=True,
    help="Output format: `json` for scripts, `github` for annotations in GitHub Actions, `table` for Markdown.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print JSON, like `--format json`.")
@click.option(
    "--fix", is_flag=True, help="Write the methods that a class lacks into it; each raises NotImplementedError."
)
@traceback_option
def check(
    targets: tuple[str, ...], strict: bool, against: str | None, format_: str, wants_json: bool, fix: bool
) -> None:
    """Check the classes of MODULE against the services of their protos. No cluster is needed.

    NAME is a class, or the result of its `.bind()`. Without NAME, check every decorated class of the module; if a
    package has none, check those of its modules.

    Exit codes: 0 all classes fit; 1 a class has a problem, or a module fails; 2 nothing to check.
    """
    from sdk.cli.changed_protos import changed_protos
    from sdk.cli.check import formats
    from sdk.cli.check.rules import with_rule_problems
    from sdk.cli.errors import exit_code

    classes: list[ClassReport] = []
    failures: list[TargetFailure] = []
    for name in dict.fromkeys(targets):
        target = _Target(name)
        seen = {report.cls for report in classes if report.cls is not None}
        classes += target.reports(strict, seen)
        failures += [TargetFailure(failed, str(error), exit_code(error)) for failed, error in target.failures]
    written: list[Written] = []
    if fix:
        from sdk.cli.check.missing_methods import write_missing_methods

        written = write_missing_methods(each.cls for each in classes if each.cls is not None and not each.is_partial)
        classes = [_without(report, written) for report in classes]
    notes: dict[str, None] = {}
    for index, each in enumerate(classes):
        classes[index], unseen = with_rule_problems(each)
        notes.update(dict.fromkeys(unseen))
    comparison = None
    services = {service.full_name: service for report in classes for service in report.services}
    served = {service.full_name for report in classes for service in report.offered}
    if against is not None and services:
        from sdk.cli.check.against import compare_against

        try:
            comparison = compare_against(list(services.values()), against, strict, served=served)
        except SdkError as error:
            failures.append(TargetFailure(against, str(error), exit_code(error)))
    changed = changed_protos(each.cls for each in classes if each.cls is not None)
    report = CheckReport(
        tuple(classes), tuple(failures), comparison, strict, tuple(written), tuple(changed), tuple(notes)
    )
    formats.show(report, "json" if wants_json else format_)
    if any(each.definition is not None and each.definition.options for each in classes) and not backend().HAS_RAY:
        click.echo(_WITHOUT_RAY, err=True)
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


class _Target:
    """A target of the command line: its classes, and the modules that failed to load.

    Args:
        target: ``"app"``, ``"app:Greeter"`` or ``"package"``.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._classes: dict[type, None] = {}
        self._rejected: list[DefinitionError] = []
        self.failures: list[tuple[str, SdkError]] = []
        # A class that does not fit must not hide those after it in its module.
        with collect_definition_errors() as self._unfit:
            self._find_classes(target)
        # Report such a class even if the target does not name it: on a cluster, the import fails there.
        self._add(self._unfit)

    def reports(self, strict: bool, seen: Container[type]) -> list[ClassReport]:
        """Return the reports on the classes that are not in ``seen``."""
        rejected = [
            ClassReport(each.class_name, self._target, None, "", None, each.problems) for each in self._rejected
        ]
        return [*(self._report(cls, strict) for cls in self._classes if cls not in seen), *rejected]

    def _find_classes(self, target: str) -> None:
        loaded = self._load(target)
        if loaded is None:
            return
        module, found = loaded
        if found is not None:
            self._add(_classes_of(found))
        else:
            self._add(_classes_of_module(module))
            for name in _submodules(module) if not self._classes else ():
                submodule = self._load(name)
                self._add(_classes_of_module(submodule[0]) if submodule is not None else ())
        if not (self._classes or self._unfit or self._rejected or self.failures):
            self.failures.append((target, ApplicationError(_nothing(target, module, found))))

    def _load(self, target: str) -> tuple[ModuleType, object | None] | None:
        try:
            return load_target(target)
        except DefinitionError as error:  # a class was bound without the decorator
            self._rejected.append(error)
        except SdkError as error:
            self.failures.append((target, error))
        return None

    def _add(self, classes: Iterable[type]) -> None:
        self._classes.update(dict.fromkeys(classes))

    def _report(self, cls: type, strict: bool) -> ClassReport:
        return check_class(cls, self._target, strict, self._unfit.get(cls))


def check_class(cls: type, target: str, strict: bool, known: Sequence[Problem] | None = None) -> ClassReport:
    """Return the report on a class.

    Args:
        cls: The class.
        target: The target on the command line.
        strict: Whether methods without annotations are problems.
        known: Its problems, if the decorator has found some.
    """
    definition, problems = definition_of(cls), list(known or ())
    if known is None:
        is_partial = definition is not None and definition.is_partial
        problems += class_rules.check_class(cls, partial=is_partial)
    if definition is None and not problems:
        message, remedy = "the class is not bound to its service", "put @grpc_deployment above it"
        problems.append(Problem("not-decorated", cls.__name__, message, remedy, code_location=locations.of_class(cls)))
    if strict and not problems:
        problems += class_rules.find_unannotated(cls)
    return ClassReport(cls.__name__, target, cls, locations.of_class(cls), definition, tuple(problems))


def _without(report: ClassReport, written: Iterable[Written]) -> ClassReport:
    """Return a report without the problems of RPCs whose methods were written."""
    subjects = {f"{each.cls.__name__}.{rpc.name}" for each in written if each.cls is report.cls for rpc in each.methods}
    return replace(report, problems=tuple(each for each in report.problems if each.subject not in subjects))


def _submodules(package: ModuleType) -> Iterator[str]:
    """Yield the names of the modules of a package that may have classes: neither generated modules nor ``__main__``."""
    # `walk_packages` imports a package to find its modules. Errors are ignored here: `_load` reports them.
    for info in pkgutil.walk_packages(vars(package).get("__path__", ()), f"{package.__name__}.", lambda _: None):
        if not info.name.endswith(("_pb2", "_pb2_grpc", "_sdk", ".__main__")):
            yield info.name


def _classes_of_module(module: ModuleType) -> list[type]:
    found: dict[type, None] = {}
    for value in list(vars(module).values()):
        if not isinstance(value, type) or definition_of(value) is not None:
            found.update(dict.fromkeys(_classes_of(value)))
    return list(found)


def _classes_of(found: Any) -> Sequence[type]:
    """Return a class itself, or the decorated classes that an application deploys."""
    if isinstance(found, type):
        return (found,)
    if isinstance(found, Configured):
        return _classes_of(found.cls)
    return deployed_classes(found) if is_application(found) else ()


def _nothing(target: str, module: ModuleType, found: object) -> str:
    if is_application(found):
        reason = explain_missing_services(found)
        return f"{target}: {reason or 'it serves HTTP only: no class in it is decorated with @grpc_deployment'}"
    if found is not None:
        return f"{target} is {type(found).__name__}; give a class, or the result of its `.bind()`"
    bare = [
        name
        for name, value in vars(module).items()
        for cls in [getattr(value, "func_or_class", value)]  # also of Ray Serve's own Deployment
        if isinstance(cls, type) and cls.__module__ == module.__name__ and generated_bases(cls)
    ]
    hint = f"; put it above {', '.join(bare)}" if bare else ""
    return f"Module {module.__name__!r} has no class that is decorated with @grpc_deployment{hint}"
