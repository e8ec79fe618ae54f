"""The log file of an actor of the ingress, among Ray Serve's log files and in their format.

The actor's stderr has its warnings too, but without their time.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from typing import Any

import ray

_MAX_BYTES, _BACKUPS = 64 << 20, 2


def log_to_file(actor: str, name: str) -> None:
    """Write what the ingress logs in this process, from INFO on, to ``serve/grpc_ACTOR_NAME.log`` of Ray's logs.

    Args:
        actor: ``"proxy"`` or ``"controller"``.
        name: Name of the actor, different from those of other actors of the node and of earlier times.
    """
    node: Any = ray._private.worker._global_node
    folder = os.path.join(node.get_logs_dir_path(), "serve")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"grpc_{actor}_{name}.log")
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS)
    handler.setFormatter(logging.Formatter(f"%(levelname)s %(asctime)s grpc_{actor} {name} -- %(message)s"))
    logger = logging.getLogger("sdk")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # The handler above ends the use of the one to stderr that logging has for loggers without any.
    errors = logging.StreamHandler()
    errors.setLevel(logging.WARNING)
    logger.addHandler(errors)
