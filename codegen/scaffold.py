"""Creates a new project from the templates in ``templates/project``, for ``sdk new``."""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jinja2

from codegen import cache, formatting
from codegen.atomic_write import locked, replace_files
from codegen.errors import CodegenError
from codegen.sync import Options, update
from codegen.template_folders import template_folders
from sdk._error_text import os_reason


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of project. Its files are in the folder of its name, and those that all kinds share next to it.

    Attributes:
        summary: Its subject, for the command's help.
        rpc: An RPC to call, without its package.
        data: Its request, as JSON; ``{package}`` is the name of the Python package.
        arguments: Some arguments for the client.
        used: Names that its modules use, so that no service may have them.
        extras: Those of this package that it needs.
        has_proto: False if its contract is a proto that this package carries.
    """

    summary: str
    rpc: str
    data: str
    arguments: str
    used: frozenset[str]
    extras: str = "serve"
    has_proto: bool = True


TEMPLATES = {
    "service": Template(
        "unary and streaming methods",
        "Greet",
        '{"name": "you"}',
        "you me",
        frozenset({"Callable", "GreetManyRequest", "GreetReply", "GreetRequest"}),
    ),
    "streaming": Template(
        "a model that sends its output token by token",
        "Generate",
        '{"text": "one two"}',
        "one two",
        frozenset({"Callable", "Iterator", "Model", "Prompt", "Token"}),
    ),
    "composition": Template(
        "a deployment that calls another one through a typed handle",
        "Ask",
        '{"text": "the tide"}',
        "the tide",
        frozenset({"ANSWERS", "Answer", "Callable", "Pair", "Question", "Score", "Scorer"}),
    ),
    "inference": Template(
        "a model behind the Open Inference Protocol, for clients of KServe and Triton",
        "",
        '{"name": "{package}"}',
        "1 2 3",
        frozenset({"Arrays", "Callable", "InferenceService", "Tensor"}),
        extras="serve,inference",
        has_proto=False,
    ),
}
# Each template and its file; {package} is the name of the Python package.
_FILES = {
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "gitignore": ".gitignore",
    "init.py": "{package}/__init__.py",
    "conftest.py": "tests/conftest.py",
    "serve.yaml": "serve.yaml",
    "ci.yml": ".github/workflows/ci.yml",
    "Dockerfile": "Dockerfile",
    "rayservice.yaml": "rayservice.yaml",
}
# The same in the folder of each kind of project.
_OWN_FILES = {
    "service.proto": "protos/{package}.proto",
    "service.py": "{package}/service.py",
    "client.py": "{package}/client.py",
    "test_service.py": "tests/test_service.py",
}
# With names up to this length, lines of the templates keep within their width.
_LONGEST = 30
# Folders of the project, which no package may share.
_FOLDERS = ("monitoring", "protos", "tests")
# Names that the modules of the project use for something else.
_USED = frozenset({"AsyncIterator", "RpcError", "Serve", "Server"})
# Version of Ray in the image and the manifest.
_RAY = "2.60.0"
# A folder with nothing else is empty: it may be a new repository.
_NOT_CONTENT = (".git",)


@dataclass(frozen=True, slots=True)
class ProjectNames:
    """Names of a new project.

    Attributes:
        project: The distribution, as in ``pyproject.toml``.
        package: Its Python package; that of its proto is its first version, ``word_count.v1``.
        service: Its gRPC service.
        template: The kind of project, one of ``TEMPLATES``.
    """

    project: str
    package: str
    service: str
    template: str = "service"

    @property
    def method(self) -> str:
        """The full name of a method to call."""
        if not TEMPLATES[self.template].has_proto:
            return "inference.GRPCInferenceService/ModelMetadata"
        return f"{self.package}.v1.{self.service}/{TEMPLATES[self.template].rpc}"

    @property
    def data(self) -> str:
        """Its request, as JSON."""
        return TEMPLATES[self.template].data.replace("{package}", self.package)


def choose_names(project: str, package: str = "", service: str = "", template: str = "service") -> ProjectNames:
    """Return the names of a project. Those that are not given are derived from the project's.

    Args:
        project: Name of its folder.
        package: Name of its Python package.
        service: Name of its gRPC service.
        template: The kind of project, one of ``TEMPLATES``.

    Raises:
        CodegenError: A name can't be used, with the reason.

    Example:
        >>> choose_names("word-count")
        ProjectNames(project='word-count', package='word_count', service='WordCount', template='service')
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", project) or not project[-1].isalnum():
        raise CodegenError(
            f"{project!r} can't name a project: use letters, digits, '-' and '_', a letter first, no '-' or '_' last",
            exit_code=2,
        )
    package = package or project.lower().replace("-", "_")
    _check_package(package)
    service = service or "".join(f"{word[0].upper()}{word[1:]}" for word in re.split(r"[-_]+", project))
    _check_service(service, TEMPLATES[template].used)
    return ProjectNames(project, package, service, template)


def files_of(names: ProjectNames) -> dict[str, bytes]:
    """Return the files of a project by their paths, including the code generated from its proto.

    Raises:
        CodegenError: The generator failed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folders("project")),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    environment.globals["imported"] = formatting.imported
    template = TEMPLATES[names.template]
    values = {
        "project": names.project,
        "package": names.package,
        "service": names.service,
        "method": names.method,
        "data": names.data,
        "arguments": template.arguments,
        "has_proto": template.has_proto,
        "extras": template.extras,
        "grpcio_tools": version("grpcio-tools"),
        "ray": _RAY,
    }
    own = {f"{names.template}/{name}": path for name, path in _OWN_FILES.items()}
    if not template.has_proto:
        del own[f"{names.template}/service.proto"]
    made = {
        path.format(package=names.package): environment.get_template(f"{name}.jinja").render(values).encode()
        for name, path in (_FILES | own).items()
    }
    if not template.has_proto:
        return made
    with tempfile.TemporaryDirectory(prefix="sdk-new-") as folder:
        root = Path(folder)
        for path, content in made.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        out = root / names.package / "gen"
        update(Options((root / "protos",), out, package=f"{names.package}.gen"))
        generated = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and cache.NAME not in path.parts
        }
    return made | generated


def create(folder: Path, names: ProjectNames, more: Mapping[str, bytes]) -> int:
    """Write a project to a folder that is empty or does not exist: all of its files, or none.

    Args:
        folder: The folder.
        names: The names of the project.
        more: Files that no template has, by their paths in the project.

    Returns:
        Number of files that were written.

    Raises:
        CodegenError: The folder is not empty, or can't be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise CodegenError(f"{folder} is a file; choose another name", exit_code=2)
    try:
        _check_empty(folder)
        files = {**files_of(names), **more}
        with locked(folder):
            _check_empty(folder)  # another process may have written to it meanwhile
            replace_files(folder, files, (), lambda: None)
    except OSError as error:
        raise CodegenError(f"can't write to {folder}: {os_reason(error)}", exit_code=2) from error
    return len(files)


def _check_empty(folder: Path) -> None:
    there = (
        sorted(entry.name for entry in folder.iterdir() if entry.name not in _NOT_CONTENT) if folder.exists() else []
    )
    if there:
        listed = ", ".join(there[:3]) + (" …" if len(there) > 3 else "")
        raise CodegenError(
            f"{folder} is not empty: it has {listed}; choose another name, or move these files away", exit_code=2
        )


def _check_package(package: str) -> None:
    problem = _package_problem(package)
    if problem:
        raise CodegenError(
            f"{package!r} can't name a Python package: {problem}; choose one with --package", exit_code=2
        )


def _package_problem(package: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        return "use lower-case letters, digits and '_', a letter first"
    if keyword.iskeyword(package):
        return "it is a Python keyword"
    if len(package) > _LONGEST:
        return f"it has more than {_LONGEST} characters"
    if package in _FOLDERS:
        return f"the project has another folder {package}/"
    if package in sys.stdlib_module_names:
        return f"it would hide the module {package!r} of Python's standard library"
    spec = importlib.util.find_spec(package)
    # Without an origin it is only a folder of that name, and a package has precedence over that.
    if spec is not None and spec.origin is not None:
        return f"it would hide the installed module {package!r} ({spec.origin})"
    return ""


def _check_service(service: str, used: frozenset[str]) -> None:
    problem = ""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", service):
        problem = "use letters and digits, a capital letter first"
    elif len(service) > _LONGEST:
        problem = f"it has more than {_LONGEST} characters"
    elif service in _USED | used or hasattr(builtins, service):
        problem = "the code of the project uses this name for something else"
    if problem:
        raise CodegenError(f"{service!r} can't name a service: {problem}; choose one with --service", exit_code=2)
