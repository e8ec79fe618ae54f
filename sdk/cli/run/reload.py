"""``sdk run --reload``: generate and deploy again after a change; after an error, keep the previous version running."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codegen.console import error_line
from codegen.file_versions import changed_files
from sdk.cli.run.regenerate import CodegenFailedError, CodegenRunner
from sdk.cli.run.targets import is_config
from sdk.cli.run.watched_files import WatchedFiles
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.cli.run.redeploy import DeployRequest

# `-c` puts the current folder first on sys.path, where a module of the user may have the name of one of Python's.
# No byte code is written: Python would use it for a file that changes again within the same second.
_PROGRAM = "import sys; sys.path[:] = filter(None, sys.path); from sdk.cli.run.redeploy import main; sys.exit(main())"
_STOP_TIMEOUT_S = 5.0
# A message names at most so many files, and counts the others.
_NAMED = 3


def require_watchfiles() -> None:
    """Check that the package ``watchfiles`` is installed.

    Raises:
        OptionsError: It is not.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise OptionsError(
            "--reload needs watchfiles, which is not installed: pip install 'ray-grpc-sdk[codegen]'"
        ) from None


@dataclass(frozen=True, slots=True)
class _Exited:
    """A process that deployed a version has exited."""

    process: subprocess.Popen[bytes]
    exit_code: int


class Reloader:
    """Deploys the target of ``sdk run`` again when its files change.

    Args:
        target: As on the command line.
    """

    def __init__(self, target: str) -> None:
        self._config = Path(target) if is_config(target) else None
        self._generator = CodegenRunner()
        self._is_stale = False
        # True: files may have changed; False: stop.
        self._events: queue.SimpleQueue[_Exited | bool] = queue.SimpleQueue()
        self._over = threading.Event()
        self._began = 0.0
        self._current: subprocess.Popen[bytes] | None = None
        self._next: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []

    def generate(self) -> str:
        """Bring generated code up to date and record the versions of all files. Call it before any file is imported.

        Returns:
            A summary of the changes; ``""`` if nothing changed.

        Raises:
            CodegenFailedError: A proto has an error.
        """
        done = self._generator.run()
        self._watched = _watched_files(self._config, self._generator)
        self._versions = self._watched.versions()
        return done

    def start(
        self,
        make_request: Callable[[], DeployRequest],
        report: Callable[[str], None],
        on_deployed: Callable[[bool], None],
    ) -> None:
        """Start to watch the files.

        Args:
            make_request: Returns the request to deploy a new version.
            report: Receives each message.
            on_deployed: Called in the reloader's thread after a version was deployed (True) or has failed (False).
        """
        self._make_request, self._report, self._on_deployed = make_request, report, on_deployed
        self._next = _start_process()
        self._events.put(True)  # files may have changed while the first version started
        for name, target in (("reload", self._work), ("reload-watch", self._watch)):
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Stop. A deployment in progress is abandoned."""
        self._over.set()
        self._events.put(False)
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)
        if self._current is not None:
            _stop(self._current)
        if self._next is not None:
            _stop(self._next)
            assert self._next.stdout is not None
            self._next.stdout.close()

    # -- threads ------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._watched.watch(self._over, lambda: self._events.put(True))
        except (RuntimeError, OSError) as error:
            self._report(error_line(f"Files can't be watched, so changes are no longer deployed: {error}"))

    def _work(self) -> None:
        while not self._over.is_set():
            event = self._events.get()
            if isinstance(event, _Exited):
                self._finish(event)
            elif event:
                self._deploy_changes()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if process is self._current:
                    self._report(line.decode(errors="replace").rstrip())
        self._events.put(_Exited(process, process.wait()))

    # -- in the worker thread -----------------------------------------------------------------

    def _deploy_changes(self) -> None:
        changed = changed_files(self._versions, self._watched.versions())
        if not changed:
            return
        self._report(f"{_listed(changed)} changed, reloading …")
        self._began = time.monotonic()
        try:
            self._generate(changed)
        except CodegenFailedError as error:
            self._versions = self._watched.versions()
            self._report(error_line(str(error)))
            self._report_failure()
            return
        # Generated files are not another change.
        self._versions = self._watched.versions()
        if self._current is not None:
            _stop(self._current)
        self._current = self._next or _start_process()
        self._send_request(self._current)
        self._next = _start_process()

    def _generate(self, changed: Sequence[Path]) -> None:
        protos = [file for file in changed if file.suffix == ".proto"]
        if not (protos or self._is_stale or set(changed).intersection(self._generator.files)):
            return
        self._is_stale = True
        done = self._generator.run()
        self._is_stale = False
        if done:
            self._report(done)
        if protos and not self._generator.is_configured:
            self._report(
                "no code was generated: run `sdk codegen`, or add [tool.sdk.codegen] to pyproject.toml to generate it "
                "after each change"
            )

    def _send_request(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        # If it has exited already, its output gives the reason.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(self._make_request().dump())
            process.stdin.flush()
        threading.Thread(target=self._read, args=(process,), name="reload-read", daemon=True).start()

    def _finish(self, event: _Exited) -> None:
        if event.process is not self._current:
            return  # a newer version has replaced it
        _stop(event.process)
        self._current = None
        self._on_deployed(event.exit_code == 0)  # first: who reads the report may kill this process
        if event.exit_code:
            self._report_failure()
        else:
            self._report(f"reloaded in {time.monotonic() - self._began:.1f} s")

    def _report_failure(self) -> None:
        self._report("Still serving the previous version. Fix the error and save again.")


def _watched_files(config: Path | None, generator: CodegenRunner) -> WatchedFiles:
    """Return the files below the working directory and ``PYTHONPATH``, the config file, and the protos."""
    path = [Path(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    folders, files = [Path.cwd(), *path, *generator.folders], [*generator.files]
    if config is not None:
        folders.append(config.parent)
        files.append(config)
    return WatchedFiles(folders, files)


def _start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-B", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # only the command receives Ctrl-C; it stops the process
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _listed(files: Sequence[Path]) -> str:
    here = Path.cwd()
    names = [str(file.relative_to(here)) if here in file.parents else str(file) for file in files[:_NAMED]]
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
