"""``sdk run --reload``: what changes is generated and deployed again, and what is wrong is told; what runs goes on."""

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

from sdk.cli.run.regenerate import CodegenFailedError, Generator
from sdk.cli.run.targets import is_config
from sdk.cli.run.watched_files import Watched, difference
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.cli.run.redeploy import Order

# With `-c` the current folder comes first in the path, where a module of the user's may be called as one of Python's.
# No byte code is written: Python takes it for that of a file that was changed within the same second.
_PROGRAM = "import sys; sys.path[:] = filter(None, sys.path); from sdk.cli.run.redeploy import main; sys.exit(main())"
_END_PATIENCE_S = 5.0
# Files that a message names before it only counts.
_NAMED = 3


def require_watchfiles() -> None:
    """Check that the package is there that watches files.

    Raises:
        OptionsError: It is not installed.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise OptionsError(
            "--reload needs watchfiles, which is not installed: pip install 'ray-grpc-sdk[codegen]'"
        ) from None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A process that deployed something is over."""

    process: subprocess.Popen[bytes]
    exit_code: int


class Reloader:
    """Deploys the target of ``sdk run`` again when its files change.

    Args:
        target: As on the command line.
    """

    def __init__(self, target: str) -> None:
        self._config = Path(target) if is_config(target) else None
        self._generator = Generator()
        self._is_stale = False
        self._events: queue.SimpleQueue[_Ended | bool] = queue.SimpleQueue()
        self._over = threading.Event()
        self._began = 0.0
        self._current: subprocess.Popen[bytes] | None = None
        self._next: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []

    def generate(self) -> str:
        """Bring generated code up to date, and note how all files are: call it before any of them is imported.

        Returns:
            What was done; empty when nothing was.

        Raises:
            CodegenFailedError: A proto has an error.
        """
        done = self._generator.run()
        self._watched = _watch_for(self._config, self._generator)
        self._state = self._watched.state()
        return done

    def start(
        self, make_order: Callable[[], Order], tell: Callable[[str], None], deployed: Callable[[bool], None]
    ) -> None:
        """Begin.

        Args:
            make_order: Returns what to deploy, when something has changed.
            tell: Gets each message.
            deployed: Called in the reloader's thread after a version was deployed, or has failed.
        """
        self._make_order, self._tell, self._deployed = make_order, tell, deployed
        self._next = _start_process()
        self._events.put(True)  # files may have changed already, while the first version started
        for name, target in (("reload", self._work), ("reload-watch", self._watch)):
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """End; a version that is being deployed is left where it is."""
        self._over.set()
        self._events.put(False)
        for thread in self._threads:
            thread.join(_END_PATIENCE_S)
        if self._current is not None:
            _end(self._current)
        if self._next is not None:
            _end(self._next)
            assert self._next.stdout is not None
            self._next.stdout.close()

    # -- threads ------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._watched.watch(self._over, lambda: self._events.put(True))
        except (RuntimeError, OSError) as error:
            self._tell(f"error: Files can't be watched, so nothing is reloaded any more: {error}")

    def _work(self) -> None:
        while not self._over.is_set():
            event = self._events.get()
            if isinstance(event, _Ended):
                self._finish(event)
            elif event:
                self._look()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if process is self._current:
                    self._tell(line.decode(errors="replace").rstrip())
        self._events.put(_Ended(process, process.wait()))

    # -- in the thread that works -------------------------------------------------------------

    def _look(self) -> None:
        changed = difference(self._state, self._watched.state())
        if not changed:
            return
        self._tell(f"{_listed(changed)} changed, reloading …")
        self._began = time.monotonic()
        try:
            self._generate(changed)
        except CodegenFailedError as error:
            self._state = self._watched.state()
            self._tell(f"error: {error}")
            self._tell_that_nothing_changed()
            return
        # Generated files are no change of their own.
        self._state = self._watched.state()
        if self._current is not None:
            _end(self._current)
        self._current = self._next or _start_process()
        self._give_order(self._current)
        self._next = _start_process()

    def _generate(self, changed: Sequence[Path]) -> None:
        protos = [file for file in changed if file.suffix == ".proto"]
        if not (protos or self._is_stale or set(changed).intersection(self._generator.files)):
            return
        self._is_stale = True
        done = self._generator.run()
        self._is_stale = False
        if done:
            self._tell(done)
        if protos and not self._generator.is_configured:
            self._tell(
                "no code was generated: run `sdk codegen`, or put [tool.sdk.codegen] into pyproject.toml, and it is "
                "done with each change"
            )

    def _give_order(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        # When it has ended already, its output says why.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(self._make_order().dump())
            process.stdin.flush()
        threading.Thread(target=self._read, args=(process,), name="reload-read", daemon=True).start()

    def _finish(self, event: _Ended) -> None:
        if event.process is not self._current:
            return  # a newer version has taken its place
        _end(event.process)
        self._current = None
        if event.exit_code:
            self._tell_that_nothing_changed()
        else:
            self._tell(f"reloaded in {time.monotonic() - self._began:.1f} s")
        self._deployed(event.exit_code == 0)

    def _tell_that_nothing_changed(self) -> None:
        self._tell("The version before goes on; mend it and save.")


def _watch_for(config: Path | None, generator: Generator) -> Watched:
    """Return what to look at: below the working directory and ``PYTHONPATH``, the config file, and the protos."""
    path = [Path(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    folders, files = [Path.cwd(), *path, *generator.folders], [*generator.files]
    if config is not None:
        folders.append(config.parent)
        files.append(config)
    return Watched(folders, files)


def _start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-B", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the command, which ends it
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _listed(files: Sequence[Path]) -> str:
    here = Path.cwd()
    names = [str(file.relative_to(here)) if here in file.parents else str(file) for file in files[:_NAMED]]
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
