"""Read a config file in Ray Serve's own schema, as for ``serve deploy``, and check it before anything starts.

The schema: https://docs.ray.io/en/latest/serve/production-guide/config.html. A section ``sdk:``, which Ray Serve
ignores, has the options of the ingress.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pydantic
import yaml  # type: ignore[import-untyped]  # Ray brings it, without types
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
    gRPCOptionsSchema,
)

from sdk._error_text import one_line, os_reason
from sdk._ingress.env_options import PREFIX, from_environment
from sdk._serve.yaml_lines import LineNumbers
from sdk.errors import ApplicationError, OptionsError
from sdk.options import ACCESS_LOG_TARGETS, GrpcOptions

_OPTIONS = tuple(field.name for field in fields(GrpcOptions))
_SECTION = "sdk"
# Options that name a file, relative to the folder of the config.
_PATHS = ("tls_certificate", "tls_private_key", "tls_client_ca", "access_log")
#: With one of these in its runtime_env, an application may bring modules that are not on this machine.
BRINGS_CODE = ("working_dir", "py_modules", "pip", "uv", "conda", "container", "image_uri")
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class ServeConfig:
    """A config file.

    Attributes:
        path: The file.
        schema: Its content, parsed by Ray Serve.
        options: Options of the ingress that it sets, by name.
        serves_http: True if it has ``http_options``, and so asks for Ray Serve's HTTP proxy.
        lines: Where its values are in the file; None if that is unknown.
    """

    path: str
    schema: ServeDeploySchema
    options: Mapping[str, Any]
    serves_http: bool
    lines: LineNumbers | None = None

    def line_of(self, where: tuple[str | int, ...]) -> int:
        """Return the number of the line of a value.

        Args:
            where: Keys and indexes that lead to the value.
        """
        return self.lines.line_of(where) if self.lines is not None else 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its applications."""
        return tuple(application.name for application in self.schema.applications)

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that its modules are imported from, the working directory first, as with ``serve run``."""
        return tuple(dict.fromkeys((os.getcwd(), os.path.dirname(os.path.abspath(self.path)))))


def read_config(path: str) -> ServeConfig:
    """Read and check a config file.

    Args:
        path: A YAML or JSON file.

    Raises:
        ApplicationError: The file can't be read.
        OptionsError: The file has errors; the message lists each with its line.

    Example:
        >>> read_config("serve.yaml").names  # doctest: +SKIP
        ('shop', 'stock')
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ApplicationError(f"{path} can't be read: {os_reason(error)}") from None
    data, lines = _parse(path, text)
    reader = _Reader(path, data, lines)
    reader.check()
    if reader.problems:
        count = f"{len(reader.problems)} problem" + ("s" if len(reader.problems) != 1 else "")
        listed = "\n".join(f"  - {path}:{line}: {what}" for line, what in sorted(reader.problems))
        raise OptionsError(f"{path}: {count}\n{listed}")
    assert reader.schema is not None
    return ServeConfig(path, reader.schema, reader.options, "http_options" in data, lines)


def _parse(path: str, text: str) -> tuple[dict[str, Any], LineNumbers | None]:
    try:
        data = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise OptionsError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        line = error.problem_mark.line + 1 if getattr(error, "problem_mark", None) else 1
        what = getattr(error, "problem", None) or one_line(error)
        raise OptionsError(f"{path}:{line}: not YAML: {what}") from None
    except ValueError as error:  # a date of month 13, for example
        raise OptionsError(f"{path} has a value that can't be read: {error}") from None
    except RecursionError:
        raise OptionsError(f"{path} is nested too deeply") from None
    if data is None:
        raise OptionsError(f"{path}:1: it is empty; a config is a mapping with `applications`")
    if not isinstance(data, dict):
        raise OptionsError(f"{path}:1: a config is a mapping with `applications`, not {type(data).__name__}")
    try:
        return data, LineNumbers(text)
    except yaml.YAMLError:  # JSON allows tabs, YAML does not
        return data, None


class _Reader:
    """Collects the problems of a file, its schema and its options."""

    def __init__(self, path: str, data: dict[str, Any], lines: LineNumbers | None) -> None:
        self._path, self._data, self._lines = path, data, lines
        self.problems: list[tuple[int, str]] = []
        self.schema: ServeDeploySchema | None = None
        self.options: dict[str, Any] = {}

    def check(self) -> None:
        for line, key in self._lines.duplicates() if self._lines is not None else ():
            self.problems.append((line, f"{key} appears twice"))
        for where, name, known in _unknown(self._data):
            near = difflib.get_close_matches(name, known, n=1)
            if near:  # else it may belong to another version of Ray Serve, which ignores unknown keys
                self._add((*where, name), f"{_spell((*where, name))} is unknown; did you mean {near[0]}?")
        try:
            schema = ServeDeploySchema.model_validate({k: v for k, v in self._data.items() if k != _SECTION})
        except pydantic.ValidationError as error:
            for problem in error.errors():
                where = tuple(problem["loc"])
                self._add(where, f"{_spell(where) or 'config'}: {_tidy(problem['msg'])}")
        else:
            self._check_applications(schema)
            self.schema = schema
        self._read_options()

    def _add(self, where: _Path, what: str) -> None:
        self.problems.append((self._lines.line_of(where) if self._lines is not None else 1, what))

    def _check_applications(self, schema: ServeDeploySchema) -> None:
        if not schema.applications:
            self._add(("applications",), "applications is empty: there is nothing to serve")
        folders = [*ServeConfig(self._path, schema, {}, False).folders, *sys.path]
        for index, application in enumerate(schema.applications):
            if any(application.runtime_env.get(key) for key in BRINGS_CODE):
                continue
            path = application.import_path
            missing = _missing_module(path.partition(":")[0] if ":" in path else path.rpartition(".")[0], folders)
            if missing:
                where = ("applications", index, "import_path")
                self._add(where, f"application {application.name!r}: no module named {missing!r} in {folders[0]}")

    def _read_options(self) -> None:
        """Read the options of the ingress; each source overrides those before it.

        The sources are Ray Serve's own options, environment variables of the applications, and the section ``sdk``.
        """
        own = self._data.get("grpc_options")
        if isinstance(own, dict):
            given = {name: value for name, value in own.items() if name in _OPTIONS}
            if not given.get("grpc_servicer_functions"):  # Ray Serve's default is an empty list
                given.pop("grpc_servicer_functions", None)
            self._take(("grpc_options",), given)
        if self._data.get("proxy_location") == "HeadOnly":
            self._take(("proxy_location",), {"proxy_location": "HeadOnly"})
        for index, application in enumerate(self.schema.applications if self.schema is not None else ()):
            where = ("applications", index, "runtime_env", "env_vars")
            variables = application.runtime_env.get("env_vars") or {}
            if not isinstance(variables, dict):
                self._add(where, f"{_spell(where)} must be a mapping of names to texts, not {variables!r}")
                continue
            for name, value in variables.items():  # Ray takes nothing else, and says so when it starts a worker
                if not isinstance(name, str) or not isinstance(value, str):
                    self._add((*where, name), f"{_spell((*where, name))} must be a text: put it in quotes")
            own_variables = {name: str(value) for name, value in variables.items() if str(name).startswith(PREFIX)}
            try:
                self.options.update(from_environment(own_variables))
            except OptionsError as error:
                self._add(where, str(error))
        section = self._data.get(_SECTION, {})
        if not isinstance(section, dict):
            self._add((_SECTION,), f"{_SECTION} must be a mapping of the ingress's options, not {section!r}")
            return
        for name in sorted(section.keys() - set(_OPTIONS), key=str):
            near = difflib.get_close_matches(str(name), _OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_OPTIONS)}"
            self._add((_SECTION, name), f"{_SECTION}.{name} is unknown; {hint}")
        self._take((_SECTION,), {name: value for name, value in section.items() if name in _OPTIONS})

    def _take(self, where: _Path, options: dict[str, Any]) -> None:
        folder = os.path.dirname(os.path.abspath(self._path))
        for name, value in options.items():
            if name == "access_log" and value in ACCESS_LOG_TARGETS:
                continue
            if name in _PATHS and isinstance(value, str):
                options[name] = os.path.join(folder, value)
        try:
            GrpcOptions(**options)
        except OptionsError as error:
            self._add(where, f"{where[0]}: {str(error).removeprefix('GrpcOptions: ')}")
        self.options.update(options)


def _unknown(data: Mapping[str, Any]) -> Iterator[tuple[_Path, str, list[str]]]:
    """Yield the path of each mapping with a key that Ray Serve does not know, the key, and the keys it knows there."""

    def look(where: _Path, value: Any, schema: type[pydantic.BaseModel], more: tuple[str, ...] = ()) -> Any:
        if isinstance(value, dict):
            known = [*schema.model_fields, *more]
            yield from ((where, name, known) for name in value if isinstance(name, str) and name not in known)

    def each(value: Any) -> Iterator[tuple[int, Any]]:
        return enumerate(value) if isinstance(value, list) else enumerate(())

    yield from look((), data, ServeDeploySchema, (_SECTION,))
    yield from look(("http_options",), data.get("http_options"), HTTPOptionsSchema)
    yield from look(("grpc_options",), data.get("grpc_options"), gRPCOptionsSchema)
    for i, application in each(data.get("applications")):
        yield from look(("applications", i), application, ServeApplicationSchema)
        for j, deployment in each(application.get("deployments") if isinstance(application, dict) else None):
            where: _Path = ("applications", i, "deployments", j)
            yield from look(where, deployment, DeploymentSchema)
            if isinstance(deployment, dict):
                actor = deployment.get("ray_actor_options")
                yield from look((*where, "ray_actor_options"), actor, RayActorOptionsSchema)


def _missing_module(name: str, folders: list[str]) -> str:
    """Return the first part of a dotted module name that does not exist, or ``""``, without an import."""
    path: list[str] | None = folders
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        dotted = ".".join(parts[:count])
        if path is None:
            return dotted
        found = importlib.machinery.PathFinder.find_spec(dotted, path)
        if found is None:
            return "" if dotted in sys.builtin_module_names else dotted
        path = None if found.submodule_search_locations is None else list(found.submodule_search_locations)
    return ""


def _spell(where: _Path) -> str:
    r"""Return a path in the form ``applications[0].name``."""
    spelled = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return spelled.removeprefix(".")


def _tidy(message: str) -> str:
    text = " ".join(message.removeprefix("Value error, ").split())
    if "duplicate applications for route prefix" in text:
        return f"{text} One that serves gRPC only may have `route_prefix: null`."
    return text
