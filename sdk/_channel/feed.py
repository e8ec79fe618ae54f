"""Messages between a node's proxy and the programs on the node that call deployments: JSON, one message a line.

A program connects to the proxy's abstract unix socket and names the deployments that it calls. The proxy answers with
the replicas of each, and again whenever they change. Nobody polls.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

#: Name of a deployment: of its application, and its own.
DeploymentKey = tuple[str, str]
#: Longest line, in bytes: some 10,000 replicas.
MAX_LINE = 4 << 20


class Address(NamedTuple):
    """Address of one replica's wire server; the fields are those of ``sdk._xds.snapshot.Endpoint``."""

    replica_id: str
    host: str
    port: int
    node_id: str = ""
    socket: str = ""


class State(NamedTuple):
    """State of one deployment.

    Attributes:
        application: Name of its application.
        deployment: Its name.
        is_known: False if no replica with a wire server has been ready yet, or it was deleted.
        addresses: Its ready replicas.
        failure: Reason why no replica can start; empty if one can.
        max_waiting: Most calls that may wait for the first replica, in this program; 0 for any number.
    """

    application: str
    deployment: str
    is_known: bool
    addresses: tuple[Address, ...] = ()
    failure: str = ""
    max_waiting: int = 0


def socket_name(node_id: str) -> str:
    """Return the name of the abstract unix socket (unix(7)) of a node's proxy, without the NUL byte before it."""
    return f"sdk-endpoints-{node_id}"


def encode_state(state: State) -> bytes:
    """Return a state as a line."""
    return json.dumps(state).encode() + b"\n"


def decode_state(line: bytes) -> State:
    """Return the state in a line."""
    application, deployment, is_known, addresses, failure, max_waiting = json.loads(line)
    return State(application, deployment, is_known, tuple(Address(*each) for each in addresses), failure, max_waiting)


def encode_interest(key: DeploymentKey, waiting: int) -> bytes:
    """Return a line that asks for a deployment's state, and for a replica of it if calls wait.

    Args:
        key: The deployment.
        waiting: Calls of this program that wait for its first replica.
    """
    return json.dumps([*key, waiting]).encode() + b"\n"


def decode_interest(line: bytes) -> tuple[DeploymentKey, int]:
    """Return the deployment in a line, and the number of calls that wait for it.

    Raises:
        ValueError: The line is something else.
    """
    found: Any = json.loads(line)
    if not isinstance(found, list) or [type(each) for each in found] != [str, str, int]:
        raise ValueError(f"expected application, deployment and number, got {line[:100]!r}")
    return (found[0], found[1]), found[2]
