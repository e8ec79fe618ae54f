"""Result of ``sdk check``, without its presentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdk._contract.implementations import generated_bases

if TYPE_CHECKING:
    from sdk._contract.definition import Definition
    from sdk.cli.changed_protos import ChangedProto
    from sdk.cli.check.missing_methods import Written
    from sdk.errors import Change, Problem
    from sdk.service import Service


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Result for one class.

    Attributes:
        name: The class's name.
        target: The target on the command line.
        cls: The class; None if the decorator rejected it.
        place: Where it is defined, ``"app.py:7"``; ``""`` if unknown.
        definition: Its definition; None if it is not decorated.
        problems: The reasons why it does not fit.
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
        """The services that clients can call: none with ``expose=False``."""
        is_exposed = self.definition is None or self.definition.options.get("expose", True)
        return self.services if is_exposed else ()

    @property
    def is_partial(self) -> bool:
        """True with ``@grpc_deployment(partial=True)``."""
        return self.definition is not None and self.definition.is_partial

    @property
    def unimplemented(self) -> tuple[str, ...]:
        """Paths of the RPCs without a method of a partial class."""
        return () if self.definition is None else self.definition.unimplemented


@dataclass(frozen=True, slots=True)
class VersionComparison:
    """Changes since another version, from the clients' point of view.

    Attributes:
        other: The other version, as on the command line.
        services: Full names of the services that were compared.
        changes: The changes.
        note: The reason why there was nothing to compare, or ``""``.
    """

    other: str
    services: tuple[str, ...]
    changes: tuple[Change, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class TargetFailure:
    """A target that could not be checked; ``exit_code`` is 2 if the command was used wrongly."""

    target: str
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Result of one run of ``sdk check``.

    Attributes:
        notes: What was not checked.
    """

    classes: tuple[ClassReport, ...]
    failures: tuple[TargetFailure, ...]
    comparison: VersionComparison | None
    strict: bool
    written: tuple[Written, ...] = ()
    changed_protos: tuple[ChangedProto, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """2 if a target could not be checked because the command was used wrongly, 1 if there is a problem, else 0."""
        changes = self.comparison.changes if self.comparison is not None else ()
        has_problem = any(report.problems for report in self.classes) or any(
            change.severity == "error" or self.strict for change in changes
        )
        has_problem = has_problem or (self.strict and bool(self.changed_protos))
        return max([int(has_problem), *(failure.exit_code for failure in self.failures)])
