"""Messages between a node's proxy and the programs on the node that call deployments: JSON, one message a line.

A program connects to the proxy's abstract unix socket and names the deployments that it calls. The proxy answers with
the replicas of each, and with the difference whenever they change. Each state has a version. A program that gets a
difference from another state than its own connects again, and so gets the whole state. Nobody polls.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

#: Name of a deployment: of its application, and its own.
DeploymentKey = tuple[str, str]
#: Longest line, in bytes: the state of some 100,000 replicas with long names.
MAX_LINE = 64 << 20


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


class StateChange(NamedTuple):
    """The difference between two states of one deployment, or a whole state.

    Attributes:
        base: Version of the state that it changes; 0 if this is the whole state.
        version: Version of the state that it gives, above 0.
        state: The new state, with only those addresses that the one before does not have.
        removed: Ids of the replicas that have left or that have another address now, which is among those of the state.
    """

    base: int
    version: int
    state: State
    removed: tuple[str, ...] = ()


def socket_name(node_id: str) -> str:
    """Return the name of the abstract unix socket (unix(7)) of a node's proxy, without the NUL byte before it."""
    return f"sdk-endpoints-{node_id}"


def encode_change(change: StateChange) -> bytes:
    """Return a change as a line."""
    return json.dumps(change).encode() + b"\n"


def decode_change(line: bytes) -> StateChange:
    """Return the change in a line."""
    base, version, (application, deployment, is_known, added, failure, max_waiting), removed = json.loads(line)
    addresses = tuple(Address(*each) for each in added)
    state = State(application, deployment, is_known, addresses, failure, max_waiting)
    return StateChange(base, version, state, tuple(removed))


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
