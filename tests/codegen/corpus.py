"""Generate the code of any tree of protos, then import, bind and type-check all of it: ``make corpus TREE=DIR``.

    .venv/bin/python -m tests.codegen.corpus TREE [-I DIR]… [--exclude GLOB]… [--root] [--no-types]

It prints the number of protos, services and modules, the time and the peak memory of ``sdk codegen``, its messages, and
each module that can't be imported, each base that can't be bound, and each error of mypy or pyright. The exit code is 1
if there is one of these.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.type_checkers import mypy

REPO = Path(__file__).parents[2]
PACKAGE = "corpus.gen"
# A type checker holds all modules that it has read: of a large tree it gets this many at a time.
CHUNK = 300
_PAGE = resource.getpagesize()


@dataclass
class Report:
    """Figures and failures of a tree.

    Attributes:
        protos: Number of proto files.
        services: Number of services.
        modules: Number of Python modules.
        seconds: Wall-clock time of ``sdk codegen``.
        cpu: Its CPU time in seconds, with all processes that it started.
        memory: Largest sum of the resident memory of these processes at one moment, in bytes.
        said: Lines that it wrote on stderr.
        imports: A line for each module that can't be imported.
        binds: A line for each generated base that can't be bound.
        types: A line for each error of a type checker.
    """

    protos: int = 0
    services: int = 0
    modules: int = 0
    seconds: float = 0
    cpu: float = 0
    memory: int = 0
    said: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    binds: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = {
            "protos": self.protos,
            "services": self.services,
            "modules": self.modules,
            "seconds": f"{self.seconds:.1f} (CPU {self.cpu:.1f})",
            "peak memory": f"{self.memory / 1e9:.2f} GB",
            "messages": len(self.said),
            "import failures": len(self.imports),
            "bind failures": len(self.binds),
            "type errors": len(self.types),
        }
        lines = [f"{name:16}{value}" for name, value in rows.items()]
        return "\n".join([*lines, *self.said, *self.imports, *self.binds, *self.types])

    @property
    def is_clean(self) -> bool:
        """True if every module can be imported, bound, and type-checked."""
        return not (self.imports or self.binds or self.types)


def examine(root: Path, codegen: Sequence[str], package: str = PACKAGE, *, types: bool = True) -> Report:
    """Generate code into a folder and return what became of it.

    Args:
        root: A folder to put on ``sys.path``.
        codegen: Arguments of ``sdk codegen``: protos and options.
        package: The package in ``root`` to generate; ``""`` for ``root`` itself.
        types: Run the type checkers.
    """
    report = Report()
    _generate(report, root, codegen, package)
    if report.protos:
        _import(report, root)
        if types:
            report.types = check_types(root, [root])
    return report


def check_types(folder: Path, roots: Sequence[Path]) -> list[str]:
    """Return what mypy and pyright report of all ``_sdk`` modules below a folder.

    Args:
        folder: The folder.
        roots: Folders to put on ``sys.path``, in it.
    """
    return [*_of_mypy(folder, roots), *_of_pyright(folder, roots)]


def modules(root: Path, pattern: str = "*_*.py") -> list[str]:
    """Return the dotted names of modules below a folder on ``sys.path``."""
    return sorted(".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob(pattern))


def _generate(report: Report, root: Path, codegen: Sequence[str], package: str) -> None:
    out = root / package.replace(".", "/")
    command = [str(Path(sys.executable).parent / "sdk"), "codegen", *codegen, "--out", str(out)]
    command += ["--package", package] if package else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            report.memory = max(report.memory, sum(_resident(process.pid)))
            time.sleep(0.05)
        said.seek(0)
        report.said = said.read().splitlines()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report.seconds = time.perf_counter() - began
    report.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode == 0:
        manifest = json.loads((out / ".sdk-codegen.json").read_text())
        report.protos = len(manifest["protos"])
        report.modules = len(modules(root))
    else:
        report.imports = [f"sdk codegen ended with {process.returncode}"]


def _resident(pid: int) -> Iterator[int]:
    """Yield the resident memory in bytes of a process and of each that it started."""
    try:
        yield int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _resident(int(child))
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return


def _import(report: Report, root: Path) -> None:
    """Import all modules in another interpreter: generated modules stay in the descriptor pool of a process."""
    code = f"from tests.codegen.corpus import load; load({str(root)!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(REPO)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        report.imports.append(f"the interpreter ended with {done.returncode}: {done.stderr}")
        return
    found = json.loads(done.stdout)
    report.services, report.imports, report.binds = found["services"], found["imports"], found["binds"]


def load(root: str) -> None:
    """Import all modules below a folder on ``sys.path``, and bind a class for each base. Print what fails, as JSON."""
    imports, bases = [], []
    for name in modules(Path(root)):
        try:
            with warnings.catch_warnings(action="error"):
                module = importlib.import_module(name)
        except Exception as error:
            imports.append(f"{name}: {type(error).__name__}: {error}")
        else:
            bases += [each for each in vars(module).values() if _is_base(each, name)]
    print(json.dumps({"services": len(bases), "imports": imports, "binds": list(_bound(bases))}))


def _is_base(value: object, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module and "__grpc_shim__" in vars(value)


def _bound(bases: Iterable[Any]) -> Iterator[str]:
    from sdk import grpc_deployment

    for base in bases:
        try:
            grpc_deployment(partial=True)(type(base.__name__, (base,), {})).bind()
        except Exception as error:
            yield f"{base.__module__}.{base.__name__}: {type(error).__name__}: {error}"


def _of_mypy(folder: Path, roots: Sequence[Path]) -> Iterator[str]:
    files = sorted(folder.rglob("*_sdk.py"))
    for start in range(0, len(files), CHUNK):
        chunk = files[start : start + CHUNK]
        done = mypy(
            chunk, [*roots, REPO], "--explicit-package-bases", "--no-error-summary", "--hide-error-context", cwd=folder
        )
        yield from (f"mypy: {line}" for line in (done.stdout + done.stderr).splitlines())


def _of_pyright(folder: Path, roots: Sequence[Path]) -> Iterator[str]:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*_sdk.py"))
    paths = [str(path) for path in (*roots, REPO)]
    for start in range(0, len(files), CHUNK):
        config = {"include": files[start : start + CHUNK], "extraPaths": paths, "pythonVersion": "3.11"}
        (folder / "pyrightconfig.json").write_text(json.dumps(config))
        command = [sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}", "--outputjson"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        for each in json.loads(done.stdout)["generalDiagnostics"]:
            line = each.get("range", {}).get("start", {}).get("line", -1) + 1
            yield f"pyright: {each.get('file')}:{line}: {each['message']}"


def main() -> int:
    """Print the report of a tree; return 1 if something fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", metavar="TREE", help="a folder of protos, or one proto")
    parser.add_argument("--root", action="store_true", help="generate for a folder on sys.path, without --package")
    parser.add_argument("--no-types", action="store_true", help="do not run mypy and pyright")
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="corpus-") as root:
        report = examine(Path(root), [given.tree, *options], "" if given.root else PACKAGE, types=not given.no_types)
    print(report)
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
