"""The ``sdk`` command in forks of one process that has imported Ray Serve, which takes two seconds of CPU time.

A fork runs the command as the installed script does: its own folder, environment, arguments and output, and its own
import of everything that is the user's. A local Ray that it starts has fewer processes. What the start of the command
costs, and what it imports, is for the tests that run the installed script.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.cluster import ROOT
from tests.support.sdk_command import SDK
from tests.support.small_ray import leave_out_processes


class CommandServer:
    """A process that forks for each command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            # A fork has one thread, so its parent must have no other: OpenBLAS would start some.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, arguments: Sequence[object], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``sdk`` with arguments in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = [str(SDK), *map(str, arguments)]
        with TemporaryDirectory(prefix="sdk-command-") as temporary:
            streams = [str(Path(temporary, name)) for name in ("stdout", "stderr")]
            order = {"words": words, "folder": str(folder), "environment": dict(environment), "streams": streams}
            try:
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
                code = int(self._process.stdout.readline())
            except BaseException:  # a test that has its time: its command must not answer the next test
                os.killpg(self._process.pid, signal.SIGKILL)
                command_server.cache_clear()
                raise
            return subprocess.CompletedProcess(words, code, *(Path(stream).read_text() for stream in streams))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@cache
def command_server() -> CommandServer:
    """Return the server of this process; it ends with the process."""
    server = CommandServer()
    atexit.register(server.close)
    return server


def serve() -> None:
    """Fork for each line of the input, and print the exit code of each."""
    gc.set_threshold(300_000)  # as the installed script does
    import ray.serve  # noqa: F401  # what takes long

    import codegen.bundled_plugins
    import codegen.render
    import sdk._serve.api
    import sdk.cli.check.command
    import sdk.cli.run.command  # noqa: F401

    codegen.render._environment().get_template("sdk.py.jinja")  # it takes a third of a small run
    leave_out_processes()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lack the other threads"
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _be_the_command(**order)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be_the_command(words: list[str], folder: str, environment: dict[str, str], streams: list[str]) -> None:
    """Run the command in this process, and end it."""
    code: object = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, stream in enumerate(streams, 1):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = words
        # As Python does for a script.
        sys.path[:1] = [str(SDK.parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        from sdk.cli.main import main

        code = main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # as the interpreter does it
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve()
