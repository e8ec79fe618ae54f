"""``sdk check``: whether classes fit the services of their proto files, without a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from sdk import checks, places
from sdk.cli.target import load_target
from sdk.deployment import Configured, definition_of
from sdk.errors import ApplicationError, DefinitionError, Problem
from sdk.implementation import generated_bases
from sdk.signatures import rpc_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sdk.definition import Definition


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out about one class.

    Attributes:
        name: The class's name.
        place: Where it is defined; ``""`` when unknown.
        definition: What it is, when it is decorated.
        problems: Why it does not fit.
    """

    name: str
    place: str
    definition: Definition | None
    problems: tuple[Problem, ...]


@click.command(epilog="Example:  sdk check app  or  sdk check app:Greeter")
@click.argument("target", metavar="MODULE[:NAME]")
@click.option("--strict", is_flag=True, help="Report methods without annotations too.")
def check(target: str, strict: bool) -> None:
    """Check that the classes of MODULE fit the services of their proto files. Needs no cluster.

    NAME is a class, or what its `.bind()` returned; without it, every decorated class of the module is checked.

    Exits with 0 when all fit, 1 when one has a problem or the module fails, 2 when there is nothing to check.
    """
    try:
        module, found = load_target(target)
    except DefinitionError as error:
        # Raised by the decorator: the import ended there, and what the module defines below it is not known.
        reports = [Report(error.class_name, "", None, error.problems)]
    else:
        classes = _classes_of_module(module) if found is None else list(_classes_of(found))
        if not classes:
            raise ApplicationError(_nothing(target, module, found))
        reports = [_report(cls, strict) for cls in classes]
    _show(reports)
    if any(report.problems for report in reports):
        raise click.exceptions.Exit(1)


def _report(cls: type, strict: bool) -> Report:
    definition, problems = definition_of(cls), checks.check(cls)
    if definition is None and not problems:
        message, remedy = "the class is not bound to its service", "put @grpc_deployment above it"
        problems.append(Problem("not-decorated", cls.__name__, message, remedy, code_location=places.of_class(cls)))
    if strict and not problems:
        problems += checks.unannotated(cls)
    return Report(cls.__name__, places.of_class(cls), definition, tuple(problems))


def _classes_of_module(module: ModuleType) -> list[type]:
    found: dict[type, None] = {}
    for value in list(vars(module).values()):
        if not isinstance(value, type) or definition_of(value) is not None:
            found.update(dict.fromkeys(_classes_of(value)))
    return list(found)


def _classes_of(found: Any) -> Iterator[type]:
    """Yield the class that was named, or the decorated classes that an application deploys."""
    if isinstance(found, type):
        yield found
    elif isinstance(found, Configured):
        yield from _classes_of(found.cls)
    elif _is_application(found):
        yield from dict.fromkeys(_deployed(found))


def _is_application(value: object) -> bool:
    # By name: Ray Serve takes a second to import, and only a module that uses it can hold one.
    return (type(value).__module__.split(".")[0], type(value).__name__) == ("ray", "Application")


def _deployed(application: Any) -> Iterator[type]:
    """Yield the decorated classes of an application, those of its constructor arguments first."""
    for deployment in vars(application).values():
        if hasattr(deployment, "func_or_class"):
            yield from _deployed_in((deployment.init_args, deployment.init_kwargs))
            # A replica runs a subclass of the class that was decorated.
            deployed = deployment.func_or_class
            bases = deployed.__mro__ if isinstance(deployed, type) else ()
            yield from (base for base in bases if definition_of(base) is not None)


def _deployed_in(arguments: Any) -> Iterator[type]:
    if _is_application(arguments):
        yield from _deployed(arguments)
    elif isinstance(arguments, dict):
        yield from _deployed_in(tuple(arguments.values()))
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from _deployed_in(argument)


def _nothing(target: str, module: ModuleType, found: object) -> str:
    if _is_application(found):
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


def _show(reports: Iterable[Report]) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        for report in reports:
            console.print(_as_tree(report))
    else:
        click.echo("\n".join(_as_text(report) for report in reports))


def _headline(report: Report) -> str:
    if not report.problems:
        return f"{report.name}: fits"
    return f"{report.name}: {len(report.problems)} problem{'' if len(report.problems) == 1 else 's'}"


def _services(definition: Definition | None) -> Iterator[tuple[str, list[str]]]:
    """Yield each service, with its place, and its methods as the proto spells them."""
    for service in definition.services if definition is not None else ():
        title = f"{service.full_name} ({places.of_proto(service, service.line)})"
        yield title, [f"rpc {rpc_text(method)}" for method in service.methods]


def _as_text(report: Report) -> str:
    lines = [_headline(report) + (f" ({report.place})" if report.place else "")]
    if report.problems:
        return "\n".join([*lines, *(f"  {problem} [{problem.rule}]" for problem in report.problems)])
    for title, methods in _services(report.definition):
        lines += [f"  {title}", *(f"    ok {method}" for method in methods)]
    return "\n".join(lines)


def _as_tree(report: Report) -> RenderableType:
    from rich.text import Text
    from rich.tree import Tree

    head = Text.assemble(
        (_headline(report), "bold red" if report.problems else "bold green"), "  ", (report.place, "dim")
    )
    tree = Tree(head, guide_style="dim")
    for problem in report.problems:
        branch = tree.add(Text.assemble((problem.subject, "bold"), "  ", (problem.rule, "red")))
        branch.add(Text(problem.message))
        branch.add(Text(problem.remedy, style="green"))
        where = ", ".join(place for place in (problem.code_location, problem.proto_location) if place)
        branch.add(Text(where, style="dim"))
    for title, methods in _services(report.definition) if not report.problems else ():
        branch = tree.add(Text(title))
        for method in methods:
            branch.add(Text.assemble(("✓ ", "green"), method))
    return tree
