"""Slowdown of a process by other load on the machine, in one number: 1 on an idle machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import TracebackType

# A separate process: threads of the load would also wait for each other. It uses a tenth of a core.
_PROGRAM = """
import time
while True:
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.03:
        pass
    now = time.monotonic()
    print(began, now, flush=True)
    time.sleep(0.27)
"""
_WORK_S = 0.03


class Slowness:
    """Measures the slowdown until the end of its block."""

    def __init__(self) -> None:
        #: Times at which each piece of work began and ended.
        self.samples: list[tuple[float, float]] = []

    def __enter__(self) -> Slowness:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, name="slowness")
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._reader.join()
        self._process.communicate()

    def between(self, since: float, until: float) -> float:
        """Return the average ratio of elapsed time to processor time of the work; 1 without measurements.

        Args:
            since: Monotonic seconds.
            until: The same.
        """
        return average(self.samples, since, until)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            began, ended = map(float, line.split())
            self.samples.append((began, ended))


def average(samples: list[tuple[float, float]], since: float, until: float) -> float:
    """Return the average slowdown of the samples that overlap a time; a sample is the begin and end of its work.

    Example:
        >>> average([(0.0, 0.03), (1.0, 1.09), (2.0, 2.15)], since=0.5, until=2.0)
        4.0
    """
    times = [(ended - began) / _WORK_S for began, ended in samples if ended >= since and began <= until]
    return round(max(1.0, sum(times) / len(times)), 1) if times else 1.0
