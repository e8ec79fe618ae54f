"""What ``sdk check`` has found out, before it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdk._contract.implementations import generated_bases

if TYPE_CHECKING:
    from sdk._contract.definition import Definition
    from sdk.errors import Change, Problem
    from sdk.service import Service


@dataclass(frozen=True, slots=True)
class ClassReport:
    """What was found out about one class.

    Attributes:
        name: The class's name.
        target: What was named on the command line.
        cls: The class; None when the decorator refused it.
        place: Where it is defined; ``""`` when unknown.
        definition: What it is, when it is decorated.
        problems: Why it does not fit.
    """

    name: str
    target: str
    cls: type | None
    place: str
    definition: Definition | None
    problems: tuple[Problem, ...]

    @property
    def services(self) -> tuple[Service, ...]:
        """The services of its generated bases."""
        bases = generated_bases(self.cls) if self.cls is not None else ()
        return tuple(vars(base)["__grpc_shim__"].service for base in bases)

    @property
    def offered(self) -> tuple[Service, ...]:
        """Those that clients can call: none with ``expose=False``."""
        is_exposed = self.definition is None or self.definition.options.get("expose", True)
        return self.services if is_exposed else ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed for the clients of another version.

    Attributes:
        other: What was named on the command line.
        services: Full names of the services that were compared.
        changes: What changed.
        note: Why there was nothing to compare, or ``""``.
    """

    other: str
    services: tuple[str, ...]
    changes: tuple[Change, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A target that could not be looked at; ``exit_code`` is 2 when the command was used wrongly."""

    target: str
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run of ``sdk check`` has found out."""

    classes: tuple[ClassReport, ...]
    failures: tuple[Failure, ...]
    comparison: Comparison | None
    strict: bool

    @property
    def exit_code(self) -> int:
        """2 when something could not be looked at because the command was used wrongly, 1 with a problem, else 0."""
        changes = self.comparison.changes if self.comparison is not None else ()
        has_problem = any(report.problems for report in self.classes) or any(
            change.severity == "error" or self.strict for change in changes
        )
        return max([int(has_problem), *(failure.exit_code for failure in self.failures)])
