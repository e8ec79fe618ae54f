"""A separate Ray cluster for each server that needs one."""

from __future__ import annotations

import ctypes
import logging

import ray

_PR_SET_CHILD_SUBREAPER = 36


def start_ray(folder: str) -> None:
    """Start a cluster that keeps its files in a folder."""
    # A process that outlives its parent stays below this one, where the benchmark looks (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
