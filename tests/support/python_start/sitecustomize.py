"""Collect garbage less often in the processes of the session's cluster, and in the programs that start their own.

With Python's thresholds, 296 collections take 0.14 of the 1.1 CPU-seconds that the imports of a replica take (measured
with `gc.callbacks`, 2026-11-29). What imports make stays: 200,000 objects that a collection visits.
"""

import gc

gc.set_threshold(300_000)
