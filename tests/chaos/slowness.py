"""How much slower than by itself a process gets its work done here: what others use of the machine, in one number."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import TracebackType

# A process of its own: threads of the load would wait for each other, too. It uses a tenth of a core.
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
    """Measures while it is entered."""

    def __init__(self) -> None:
        #: When each piece of work began and ended.
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
        """Return how many times longer than its own time work took, on average; 1 where nothing was measured.

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
    """Return the average slowness of the samples that overlap a time; each is when its work began and ended.

    Example:
        >>> average([(0.0, 0.03), (1.0, 1.09), (2.0, 2.15)], since=0.5, until=2.0)
        4.0
    """
    times = [(ended - began) / _WORK_S for began, ended in samples if ended >= since and began <= until]
    return round(max(1.0, sum(times) / len(times)), 1) if times else 1.0
