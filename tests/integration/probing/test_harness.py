"""The harness and a cluster give the same answers: the same requests to the same applications, byte by byte.

The differences that are accepted are in ``docs/guides/testing.md``, under "Differences from a cluster".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from orders_pb2 import Divisor, Order
from probe_pb2 import Ask
from user_defined_protos_pb2 import UserDefinedMessage

import sdk.testing
from sdk._gen.serve_api_pb2 import HealthzRequest, ListApplicationsRequest
from tests.integration import edge_apps, probes
from tests.integration.prober import METHODS, SERVICES
from tests.support.cluster import Ingress
from tests.support.raw_client import RawClient, Stream, compressed, frame
from tests.validation import order_apps
from tests.web.protocol_forms import FORMS, Form

ACTS = (
    *("", "raise", "raise long", "set code and raise", "set OK and raise", "set code", "set details"),
    *("abort", "rpc error", "handle that raises", "handle that aborts", "wrong type", "none"),
)
ID = ("request_id", "mine")
#: Requests in flight at once: fewer than any limit of the applications.
AT_ONCE = 16
EMPTY = frame(b"")


@dataclass(frozen=True)
class Request:
    """A request, as the client of the tests sends it.

    Attributes:
        path: Its path.
        application: Its metadata ``application``; ``""`` for none.
        body: The bytes of its body.
        headers: More headers.
        options: Options of :meth:`RawClient.open`.
    """

    path: str
    application: str = "probe"
    body: bytes = EMPTY
    headers: tuple[tuple[str, str], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def frames(*messages: Message) -> bytes:
    return b"".join(frame(message.SerializeToString()) for message in messages)


def requests() -> Iterator[tuple[str, Request]]:
    """Yield requests by name."""
    for service, method, act, number in product(SERVICES, METHODS, ACTS, (0, 2)):
        if number and method not in ("Down", "Both"):
            continue
        body = frames(Ask(act=act, note="note", number=number, payload=b"x"))
        yield f"{service} {method} {act!r} {number}", Request(f"/probe.{service}/{method}", body=body)
    for service, method in product(SERVICES, METHODS):
        path, echo = f"/probe.{service}/{method}", frames(Ask(act="echo", payload=b"x" * 3000))
        yield f"{path} its id", Request(path, body=echo, headers=(ID, ID))
        yield f"{path} gzip accepted", Request(path, body=echo, headers=(("grpc-accept-encoding", "gzip"),))
        yield f"{path} gzip sent", Request(path, body=compressed(b""), headers=(("grpc-encoding", "gzip"),))
        yield f"{path} an unknown encoding", Request(path, headers=(("grpc-encoding", "snappy"),))
        yield f"{path} compressed without an encoding", Request(path, body=compressed(b""))
        yield f"{path} no message", Request(path, body=b"")
        yield f"{path} two messages", Request(path, body=EMPTY * 2)
        yield f"{path} half a message", Request(path, body=EMPTY[:3])
        yield f"{path} another message", Request(path, body=frame(b"\xff\xff"))
        yield f"{path} an unknown flag", Request(path, body=frame(b"", flag=2))
        yield f"{path} a deadline", Request(path, body=frames(Ask(act="wait")), headers=(("grpc-timeout", "50m"),))
        yield f"{path} a malformed deadline", Request(path, headers=(("grpc-timeout", "soon"),))
        yield f"{path} an unknown application", Request(path, "nothing", EMPTY)
        yield f"{path} no application", Request(path, "", EMPTY)
        yield f"{path} two applications", Request(path, headers=(("application", "edges"),))
        yield f"{path} metadata", Request(path, headers=(("x-bin", "AAEC"), ("x", "a,b"), ("z", "é"), ("x", "c")))
    one = "/probe.AsyncProbe/Unary"
    for options in ({"method": "GET"}, {"method": "PUT"}, {"content_type": "application/json"}, {"te": None}):
        yield f"{options}", Request(one, options=options)
    for content_type in ("application/grpc+proto", "application/grpc+json", "application/grpc-web", None):
        yield f"content-type {content_type}", Request(one, options={"content_type": content_type})
    for path in ("/probe.AsyncProbe/Nothing", "/probe.Nothing/Unary", "/x", "/", "/-/healthz", "/sdk.replica/alive"):
        yield f"path {path}", Request(path)
        yield f"GET {path}", Request(path, options={"method": "GET", "content_type": None}, body=b"")
    yield from edges()
    yield from composed()
    yield from web()
    yield from built_in()


def edges() -> Iterator[tuple[str, Request]]:
    """Yield requests to a partial service, a hidden deployment behind it, and one that checks its messages."""
    for method, act in product(METHODS, ("", "seen", "fail", "raise", "stop", "group", "cancelled")):
        body = frames(Ask(act=act, note="note", number=2))
        headers = (ID, ("user", "me"), ("multiplexed_model_id", "m"), ("grpc-accept-encoding", "gzip"))
        yield f"front {method} {act}", Request(f"/probe.SyncProbe/{method}", "edges", body, headers)
        yield f"hidden {method} {act}", Request(f"/probe.AsyncProbe/{method}", "edges", body)
    for method, bad in product(("Place", "Follow", "Collect", "Exchange"), (Order(id="abc", count=1), Order(id="a"))):
        yield f"order {method} {bad.id}", Request(f"/orders.Orders/{method}", "orders", frames(bad))
    for number in (1, 1001, 0):
        yield f"divide by {number}", Request("/orders.Orders/Divide", "orders", frames(Divisor(number=number)))


def composed() -> Iterator[tuple[str, Request]]:
    """Yield requests that a deployment passes on through typed handles, to one that Ray Serve's decorator made too."""
    service = "/userdefinedprotos.UserDefinedService"
    # "caught" reads the details of an error, "plain" goes through the deployment of Ray Serve's decorator.
    origins = ("", "caught", "plain", "given", "first")
    for origin, act in product(origins, ("note", "seen", "fail", "raise", "stop", "group", "cancelled")):
        if act == "seen" and origin != "given":
            continue  # it shows the time that is left
        message = UserDefinedMessage(name=act, origin=origin, num=2)
        yield f"composed {origin} {act}", Request(f"{service}/__call__", "edges", frames(message), (ID,))
    for origin, act in product(("", "both"), ("note", "fail")):
        message = UserDefinedMessage(name=act, origin=origin, num=3)
        yield f"composed stream {origin} {act}", Request(f"{service}/Streaming", "edges", frames(message), (ID,))
    several = UserDefinedMessage(name="note", origin="several")  # calls at once, of which one fails
    yield "composed several", Request(f"{service}/__call__", "edges", frames(several), (ID,))
    timed = UserDefinedMessage(name="wait here", origin="timed", num=20)
    yield "composed timeout", Request(f"{service}/__call__", "edges", frames(timed), (ID,))


def web() -> Iterator[tuple[str, Request]]:
    """Yield requests over JSON, server-sent events, Connect and gRPC-Web."""
    acts = ("echo", "raise", "set code", "abort", "rpc error", "wrong type")
    streams = {"Unary": (False, False), "Down": (False, True), "Up": (True, False), "Both": (True, True)}
    for form, (method, act), service in product(FORMS.values(), product(METHODS, acts), SERVICES):
        if service == "SyncProbe" and act not in ("echo", "raise"):
            continue
        ask = Ask(act=act, note="note", number=2, payload=b"x" * 100)
        yield f"{form.name} {service} {method} {act}", of_form(form, f"probe.{service}/{method}", ask, streams[method])
    for form, (method, bad) in product(
        FORMS.values(), product(("Place", "Follow", "Collect", "Exchange"), (Order(id="abc", count=1), Order(id="a")))
    ):
        kind = {"Place": "Unary", "Follow": "Down", "Collect": "Up", "Exchange": "Both"}[method]
        request = of_form(form, f"orders.Orders/{method}", bad, streams[kind], "orders")
        yield f"{form.name} order {method} {bad.id}", request
    for form in FORMS.values():
        for path, application in (
            ("probe.AsyncProbe/Nothing", "probe"),
            ("probe.Nothing/Unary", "probe"),
            ("probe.AsyncProbe/Unary", "nothing"),
            ("probe.AsyncProbe/Unary", ""),
            ("probe/probe.AsyncProbe/Unary", ""),
            ("probe.SyncProbe/Up", "edges"),
        ):
            request = of_form(form, path, Ask(act="echo"), (False, False), application)
            yield f"{form.name} {path} of {application!r}", request
            yield f"{form.name} {path} of {application!r} nonsense", replace(request, body=frame(b"\xff\xff"))
        late = of_form(form, "probe.AsyncProbe/Unary", Ask(act="wait"), (False, False))
        for deadline in (("grpc-timeout", "50m"), ("connect-timeout-ms", "50"), ("connect-timeout-ms", "soon")):
            yield f"{form.name} {deadline}", replace(late, headers=(*late.headers, deadline))
    one = "/probe.AsyncProbe/Unary"
    for query in ("?connect=v1&encoding=json&message=%7B%7D", "?encoding=json&message=x", "?message=", ""):
        for path in (one, "/orders.Orders/Divide"):
            application = "orders" if "Divide" in path else "probe"
            request = Request(path + query, application, b"", (ID,), {"method": "GET", "content_type": None})
            yield f"GET {path}{query}", request
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        yield f"{method} of JSON", Request(one, headers=(ID,), options={"method": method, "content_type": "text/plain"})
    for path in ("/openapi.json", "/openapi.json?x=1"):
        for application in ("probe", "orders", "nothing"):
            options = {"method": "GET", "content_type": None}
            yield f"{path} of {application}", Request(path, application, b"", (ID,), options)


def of_form(form: Form, path: str, ask: Message, streams: tuple[bool, bool], application: str = "probe") -> Request:
    """Return a request of a web protocol. Its id is given, since some bodies hold it in base64."""
    options = {"content_type": form.content_type(*streams), "te": None}
    body = form.encode([ask] * (1 + streams[0]), any(streams))
    return Request(f"/{path}", application, body, (ID, *form.headers.items()), options)


def built_in() -> Iterator[tuple[str, Request]]:
    """Yield requests that the proxy answers."""
    for service, application in product(("", "probe.AsyncProbe", "x.Y", "grpc.health.v1.Health"), ("probe", "nothing")):
        body = frames(HealthCheckRequest(service=service))
        yield f"health of {service} of {application}", Request("/grpc.health.v1.Health/Check", application, body)
    for asked in ({"list_services": ""}, {"file_containing_symbol": "probe.Ask"}, {"file_by_filename": "no.proto"}):
        for version in ("v1", "v1alpha"):
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            yield f"reflection {version} {asked}", Request(path, body=frames(ServerReflectionRequest(**asked)))
    for method, request in (("ListApplications", ListApplicationsRequest()), ("Healthz", HealthzRequest())):
        yield method, Request(f"/ray.serve.RayServeAPIService/{method}", body=frames(request))


# What changes from call to call, and the one accepted difference: the lines of a traceback within Ray Serve's handles.
CHANGING = (
    (rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", b"<id>"),
    (rb"0x[0-9a-f]+", b"<address>"),
    (rb'(File "[^"]*/ray/serve/handle.py").*(ValueError: raised downstream)', rb"\1 ... \2"),
)


def answers(raw: RawClient, asked: dict[str, Request]) -> dict[str, list[Any]]:
    """Return the whole answer to each request: each header block with its order, the messages, and how it ends."""
    found = {}
    names = list(asked)
    for start in range(0, len(names), AT_ONCE):
        streams = {name: begin(raw, asked[name]) for name in names[start : start + AT_ONCE]}
        for name, stream in streams.items():
            stream.finish()
            blocks = [
                [(key, b"" if key == b"date" else settled(value)) for key, value in block] for block in stream.blocks
            ]
            body = settled(bytes(stream.body))
            # A Struct, whose keys have another order in each process.
            found[name] = [*blocks, json.loads(body) if name.startswith("/openapi") else body, stream.reset]
    return found


def begin(raw: RawClient, request: Request) -> Stream:
    application = [("application", request.application)] if request.application else []
    stream = raw.open(request.path, [*application, *request.headers], **request.options)
    stream.send(request.body, end=True)
    return stream


def settled(data: bytes) -> bytes:
    for pattern, instead in CHANGING:
        data = re.sub(pattern, instead, data, flags=re.DOTALL)
    return data


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    notes = str(tmp_path_factory.mktemp("notes"))
    return {
        "probe": probes.application(),
        "edges": edge_apps.application(notes),
        "orders": order_apps.Strict.bind(),
    }


def test_the_harness_answers_as_the_cluster(ingress: Ingress, applications: dict[str, Any], deploy: Any) -> None:
    for name in ("edges", "orders"):
        deploy(applications[name], name)
    asked = dict(requests())
    with sdk.testing.serve(applications) as server, RawClient(server.target) as harness:
        in_harness = answers(harness, asked)
    with RawClient(ingress.address) as client:
        on_cluster = answers(client, asked)
    differing = [name for name in asked if in_harness[name] != on_cluster[name]]
    for name in differing:
        print(name, "\n  harness", in_harness[name], "\n  cluster", on_cluster[name])
    assert differing == []
