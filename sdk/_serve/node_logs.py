"""Log lines in the files of one node: those of replicas, of Ray Serve, of the ingress, of Envoy, and the access log.

It runs on every node of a cluster whose logs are read, even without our packages there. So it imports only the standard
library and, in the actor, Ray, and returns plain values.
"""

from __future__ import annotations

import calendar
import json
import os
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

#: One entry of a log by the name of its field: ``time`` (seconds since the epoch), ``source``, ``application``,
#: ``deployment``, ``replica``, ``level``, ``request_id``, ``method``, ``trace_id``, ``message``; ``call`` has all
#: fields of a line of the access log. An unknown field has the value None.
Entry: TypeAlias = dict[str, Any]

# Ray Serve's text: https://docs.ray.io/en/latest/serve/monitoring.html#ray-logging
_TEXT = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) (.*)", re.DOTALL)
# Before the message: the request id, then the method and the trace id of the call, where the line has them.
_CALL = re.compile(r"(.+?)(?: (/\S+))?(?: ([0-9a-f]{32}))?")
_ENVOY = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.(\d{3})\]\[\d+\]\[(\w+)\](.*)", re.DOTALL)
_ACCESS_TEXT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z (.*)", re.DOTALL)
# A value of the access log's text is quoted if it may contain a space.
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
_REPLICA_FILE = re.compile(r"replica_(.+)_([^_]+)\.log(?:\.\d+)?")
_ACTOR_FILE = re.compile(r"(grpc_proxy|grpc_controller|controller)_\w+\.log(?:\.\d+)?")
_SOURCES = {"grpc_proxy": "proxy", "grpc_controller": "controller", "controller": "serve"}
# Fields of the access log in the message of its entry.
_SHOWN = ("method", "status", "duration_ms", "peer", "flags", "details", "message")
_TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")


@dataclass(frozen=True)
class Query:
    """The entries that somebody looks for.

    Attributes:
        request_id: Only those of this call.
        application: Only those of this application.
        deployment: Only those of this deployment.
        since: Only those from this time on, in seconds since the epoch.
        tail: Number of the last ones that are wanted; None for all.
        access_log: Path of the access log; empty for none, ``"stdout"`` if the proxy's output has it.
        known: Pairs of an application and a deployment. Ray Serve joins their names to one.
    """

    request_id: str | None = None
    application: str | None = None
    deployment: str | None = None
    since: float | None = None
    tail: int | None = None
    access_log: str = ""
    known: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Position:
    """The position to which a file has been read, and the entry to which a further line without a head belongs."""

    offset: int = 0
    entry: Entry | None = None


class NodeLogs:
    """Reads the log files of one node; each time what is new since the last.

    Args:
        serve_folder: Folder of Ray Serve's logs.
        proxy_folder: Folder of the node's proxy, with Envoy's log.
    """

    def __init__(self, serve_folder: str, proxy_folder: str) -> None:
        self._serve, self._proxy = Path(serve_folder), Path(proxy_folder)
        # By device and inode: a log file that is rotated gets another name.
        self._positions: dict[tuple[int, int], _Position] = {}
        self._known_seconds: dict[tuple[Callable[..., float], str], float] = {}

    def read(self, query: Query) -> list[Entry]:
        """Return the new entries that match, by time.

        Args:
            query: The entries to look for; the same each time, but for ``tail``.

        Raises:
            PermissionError: A file belongs to another user.
        """
        found: list[Entry] = []
        for path, parse in self._files(query):
            found += self._new(path, parse, query)
        found.sort(key=lambda entry: entry["time"])
        return found if query.tail is None else found[max(0, len(found) - query.tail) :]

    def _files(self, query: Query) -> Iterator[tuple[Path, Callable[[str], Entry | None]]]:
        for path in sorted(self._serve.glob("*.log*")):
            if named := _REPLICA_FILE.fullmatch(path.name):
                yield path, partial(self._of_replica, replica=named[2], query=query)
            elif named := _ACTOR_FILE.fullmatch(path.name):
                yield path, partial(self._of_actor, source=_SOURCES[named[1]])
        yield self._proxy / "envoy.log", self._of_envoy
        if query.access_log == "stdout":
            yield Path(os.path.realpath(self._proxy / "stdout")), self._of_access_log
        elif query.access_log:
            yield Path(query.access_log), self._of_access_log

    def _new(self, path: Path, parse: Callable[[str], Entry | None], query: Query) -> deque[Entry]:
        kept: deque[Entry] = deque(maxlen=query.tail)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return kept  # it was removed just now, or nothing has been written
        with file:
            status = os.fstat(file.fileno())
            if not os.path.isfile(path):
                return kept  # an access log may go to a device or a pipe
            position = self._positions.setdefault((status.st_dev, status.st_ino), _Position())
            if status.st_size < position.offset:  # it was truncated
                position.offset, position.entry = 0, None
            file.seek(position.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the rest is being written
                position.offset += len(line)
                self._take(line.decode("utf-8", "replace"), parse, query, position, kept)
        return kept

    def _take(
        self,
        line: str,
        parse: Callable[[str], Entry | None],
        query: Query,
        position: _Position,
        kept: deque[Entry],
    ) -> None:
        entry = parse(line.rstrip("\n"))
        if entry is not None:
            position.entry = entry
            if _matches(entry, query):
                kept.append(entry)
            return
        last = position.entry
        if last is None or not _matches(last, query):
            return
        if kept and kept[-1] is last:
            last["message"] += "\n" + line.rstrip("\n")
        else:  # its first line was returned before
            position.entry = {**last, "message": line.rstrip("\n")}
            kept.append(position.entry)

    # -- one line of each kind; None for a further line of an entry ----------------------------

    def _of_replica(self, line: str, replica: str, query: Query) -> Entry | None:
        if line.startswith("{"):
            fields = _json(line)
            if fields is None or "levelname" not in fields:
                return None
            return _entry(
                self._local(str(fields.get("asctime", ""))[:19], str(fields.get("asctime", ""))[20:]),
                "replica",
                str(fields.get("message", "")) + (f"\n{fields['exc_text']}" if fields.get("exc_text") else ""),
                application=fields.get("application"),
                deployment=fields.get("deployment"),
                replica=fields.get("replica", replica),
                level=fields["levelname"],
                request_id=fields.get("request_id"),
                method=fields.get("method") or _path_or_none(fields.get("route")),
                trace_id=fields.get("trace_id"),
            )
        head = _TEXT.fullmatch(line)
        component, found, rest = head[4].partition(f" {replica} ") if head else ("", "", "")
        if head is None or not found:
            return None
        named, _, message = rest.partition("-- ")
        call = _CALL.fullmatch(named.strip())
        application, deployment = _split(component, query)
        return _entry(
            self._local(head[2], head[3]),
            "replica",
            message,
            application=application,
            deployment=deployment,
            replica=replica,
            level=head[1],
            request_id=call and call[1],
            method=(call and call[2]) or _called(message),
            trace_id=call and call[3],
        )

    def _of_actor(self, line: str, source: str) -> Entry | None:
        head = _TEXT.fullmatch(line)
        if head is None:
            return None
        named, separator, message = head[4].partition("-- ")
        return _entry(self._local(head[2], head[3]), source, message if separator else named, level=head[1])

    def _of_envoy(self, line: str) -> Entry | None:
        head = _ENVOY.fullmatch(line)
        if head is None:
            return None
        level = head[3].upper()
        return _entry(self._local(head[1], head[2]), "envoy", head[4], level=level)

    def _of_access_log(self, line: str) -> Entry | None:
        fields = _json(line)
        if fields is None:
            text = _ACCESS_TEXT.fullmatch(line)
            if text is None:
                return None
            fields = {"time": line.partition(" ")[0], **_pairs(text[3])}
        try:
            at = str(fields["time"])
            seconds = self._utc(at[:19].replace("T", " "), at[20:23])
        except (KeyError, ValueError):
            return None
        # Envoy writes "-" for a field that the call does not have.
        known = {name: value for name, value in fields.items() if value != "-"}
        trace = _TRACE_ID.match(str(known.get("traceparent") or ""))
        shown = map(known.get, _SHOWN)
        return _entry(
            seconds,
            "access",
            " ".join(str(value) for value in shown if value not in (None, "")),
            application=known.get("application"),
            deployment=known.get("deployment"),
            replica=(known.get("replica") or "").rpartition("#")[2] or None,
            request_id=known.get("request_id"),
            method=known.get("method"),
            trace_id=trace and trace[1],
            call=fields,
        )

    def _local(self, second: str, millisecond: str) -> float:
        """Return the seconds since the epoch of a time in this node's time zone; 0 if it is not a time."""
        try:
            return self._seconds(second, millisecond, time.mktime)
        except ValueError:
            return 0.0

    def _utc(self, second: str, millisecond: str) -> float:
        """Return the seconds since the epoch of a time in UTC.

        Raises:
            ValueError: It is not a time.
        """
        return self._seconds(second, millisecond, calendar.timegm)

    def _seconds(self, second: str, millisecond: str, count: Callable[[time.struct_time], float]) -> float:
        # Most lines are of a second that another line has had.
        known = self._known_seconds.get((count, second))
        if known is None:
            if len(self._known_seconds) > 10_000:
                self._known_seconds.clear()
            known = self._known_seconds[count, second] = float(count(time.strptime(second, "%Y-%m-%d %H:%M:%S")))
        return known + (int(millisecond) / 1000 if millisecond.isdigit() else 0)


class NodeReader(NodeLogs):
    """Class of the actor that reads the logs of its node.

    Args:
        node_id: Ray's id of the node.
    """

    def __init__(self, node_id: str) -> None:
        import ray

        node: Any = ray._private.worker._global_node
        proxy_folder = os.path.join(tempfile.gettempdir(), f"sdk-ingress-{node_id[:12]}")
        super().__init__(os.path.join(node.get_logs_dir_path(), "serve"), proxy_folder)


def _entry(
    at: float,
    source: str,
    message: str,
    *,
    application: str | None = None,
    deployment: str | None = None,
    replica: str | None = None,
    level: str | None = None,
    request_id: str | None = None,
    method: str | None = None,
    trace_id: str | None = None,
    call: dict[str, Any] | None = None,
) -> Entry:
    return {
        "time": at,
        "source": source,
        "application": application,
        "deployment": deployment,
        "replica": replica,
        "level": level,
        "request_id": request_id,
        "method": method,
        "trace_id": trace_id,
        "message": message,
        "call": call,
    }


def _matches(entry: Entry, query: Query) -> bool:
    if query.since is not None and entry["time"] < query.since:
        return False
    if query.request_id is not None and entry["request_id"] != query.request_id:
        # The ingress and Envoy name a call in their messages, if at all.
        return entry["request_id"] is None and query.request_id in entry["message"]
    if query.application is not None and entry["application"] != query.application:
        return False
    return query.deployment is None or entry["deployment"] == query.deployment


def _split(component: str, query: Query) -> tuple[str, str]:
    """Return the application and the deployment of a component, whose names Ray Serve has joined with ``_``."""
    for application, deployment in query.known:
        if component == f"{application}_{deployment}":
            return application, deployment
    # One that has been deleted. The names in the query decide; otherwise applications rarely have a ``_``.
    if query.application is not None and component.startswith(f"{query.application}_"):
        return query.application, component[len(query.application) + 1 :]
    if query.deployment is not None and component.endswith(f"_{query.deployment}"):
        return component[: -len(query.deployment) - 1], query.deployment
    application, _, deployment = component.partition("_")
    return application, deployment


def _called(message: str) -> str | None:
    """Return the method in the line that a replica logs for each call."""
    words = message.split(" ", 2)
    return words[1] if len(words) > 2 and words[0] == "CALL" and words[1].startswith("/") else None


def _path_or_none(route: Any) -> str | None:
    return route if isinstance(route, str) and route.count("/") > 1 else None


def _json(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _pairs(text: str) -> dict[str, str]:
    return {name: value[1:-1] if value.startswith('"') else value for name, value in _PAIR.findall(text)}
