"""Changes of the ingress's options under load."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from sdk._guard.between_nodes import own_between_nodes
from sdk._ingress.cluster import NAMESPACE, find_controller, proxy_name
from sdk.access import Access, JwtIssuer, Limit, Rule
from tests.integration import apps
from tests.integration.clients import FOO, metadata_for
from tests.support.deadlines import PACE_S, wait_until
from tests.support.processes import commands, ingress_folder
from tests.support.tokens import encode

TUNED = metadata_for("tuned")
LIMIT = 1 << 20
TOO_LONG = UserDefinedMessage(name="x" * LIMIT)
SERVICE, OTHER = "userdefinedprotos.UserDefinedService", "userdefinedprotos.ImageClassificationService"
# Twenty calls reach both replicas, if there are two.
MANY = range(20)


def running() -> sdk.GrpcOptions:
    """Return the running ingress's options; wait while the controller restarts."""
    deadline = time.monotonic() + 30
    while True:
        try:
            options: sdk.GrpcOptions = ray.get(find_controller().status.remote(), timeout=30).options
        except ray.exceptions.ActorUnavailableError:  # a failed attempt is repeated
            assert time.monotonic() < deadline, "it did not come back"
            time.sleep(0.05)
        else:
            return options


def is_healthy() -> bool:
    try:
        status = sdk.status()
    except sdk.ClusterError:
        return False
    (application,) = (app for app in status.applications if app.name == "tuned")
    return status.is_healthy and bool(application.deployments[0].endpoints)


@pytest.fixture(scope="module")
def before(deploy: Any) -> Iterator[sdk.GrpcOptions]:
    """The options of the session's ingress, restored for other tests."""
    deploy(apps.Guide.options(num_replicas=2).bind("v1"), "tuned")
    options = running()
    yield options
    wait_until(is_healthy)
    sdk.start(options)
    assert running() == options


class Callers:
    """Two threads that make unary and streaming calls in turn until the block ends."""

    def __init__(self, address: str) -> None:
        self._address, self._stop = address, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(2)]
        self.answered, self.failed = 0, list[grpc.RpcError]()

    def _call(self) -> None:
        with grpc.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = UserDefinedServiceStub(channel)
            while not self._stop.wait(PACE_S):
                try:
                    stub.__call__(FOO, metadata=TUNED)
                    assert len(list(stub.Streaming(FOO, metadata=TUNED))) == 10
                    self.answered += 1
                except grpc.RpcError as error:  # a failed call does not end the loop
                    self.failed.append(error)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def codes(stub: UserDefinedServiceStub, request: UserDefinedMessage) -> set[str]:
    found = set()
    for _ in MANY:
        try:
            stub.__call__(request, metadata=TUNED)
            found.add("OK")
        except grpc.RpcError as error:  # a failed call does not end the loop
            found.add(error.code().name)
    return found


def test_options_change_under_load_and_stay(
    before: sdk.GrpcOptions, ingress: Any, channel: grpc.Channel, deploy: Any
) -> None:
    stub = UserDefinedServiceStub(channel)
    changed = replace(
        before,
        request_timeout_s=30.0,
        route_by_service=True,
        error_details="message",
        max_receive_message_length=LIMIT,
        grpc_servicer_functions=(SERVICE,),
    )
    (proxy,) = sdk.status().proxies
    with Callers(ingress.address) as callers:
        assert codes(stub, TOO_LONG) == {"OK"}
        sdk.start(changed)
        assert codes(stub, TOO_LONG) == {"RESOURCE_EXHAUSTED"}, "it applies in every replica"
        ray.kill(find_controller(), no_restart=False)
        assert running() == changed, "the next controller has it from the start"
        ray.kill(ray.get_actor(proxy_name(proxy.node_id), namespace=NAMESPACE), no_restart=False)
        wait_until(is_healthy)
        deploy(apps.Guide.bind("v2"), "tuned")
        assert codes(stub, TOO_LONG) == {"RESOURCE_EXHAUSTED"}, "a new replica has it, too"
        sdk.start(replace(changed, max_receive_message_length=2 * LIMIT))
        assert codes(stub, TOO_LONG) == {"OK"}
    assert callers.answered > 100
    assert not callers.failed, (len(callers.failed), callers.answered, callers.failed[0])
    assert sdk.status().proxies[0].envoy_pid == proxy.envoy_pid, "Envoy was not restarted"


def test_access_changes_under_load_and_secrets_stay_secret(
    before: sdk.GrpcOptions, ingress: Any, channel: grpc.Channel, tmp_path: Path
) -> None:
    stub = UserDefinedServiceStub(channel)
    key, shared = "sdk_" + "k" * 39, "s" * 43
    files = {"keys": f"batch sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"}
    files["jwks"] = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "1", "k": shared}]})
    for name, text in files.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    issuer = JwtIssuer("https://id.example.org", str(tmp_path / "jwks"), require_expiration=False)
    open_to_all = Access(issuers=(issuer,), api_keys=str(tmp_path / "keys"))
    ruled = replace(open_to_all, rules=(Rule("anyone", ("tuned",)),), limits=(Limit(calls_at_once=1000),))
    token = sign_hs256({"iss": issuer.issuer, "sub": "ann"}, shared)
    secrets = [key, shared, token, token.rpartition(".")[2]]
    if own_between_nodes().secret:
        secrets.append(own_between_nodes().secret)

    def code(*credentials: tuple[str, str]) -> str:
        try:
            stub.__call__(FOO, metadata=(*TUNED, *credentials))
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    with Callers(ingress.address) as callers:
        for access in (open_to_all, ruled):
            sdk.start(replace(before, access=access))
            assert code(("x-api-key", key)) == code(("authorization", f"Bearer {token}")) == "OK"
            assert code(("x-api-key", key[:-1])) == code(("authorization", f"Bearer {token[:-2]}")) == "UNAUTHENTICATED"
        seen = places_of(secrets, str(tmp_path / "keys"))
        sdk.start(before)
    assert callers.answered > 10
    assert not callers.failed, (len(callers.failed), callers.answered, callers.failed[0])
    public = seen.pop(str(tmp_path / "keys"))
    assert any(place.startswith("memory of the GCS") for place in public), "the options are stored there"
    assert [places for places in seen.values() if places] == []


def sign_hs256(claims: dict[str, str], secret: str) -> str:
    """Return a token that is signed with a shared secret, in base64url."""
    head = encode(json.dumps({"alg": "HS256", "kid": "1"}).encode())
    signed = f"{head}.{encode(json.dumps(claims).encode())}"
    key = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    return f"{signed}.{encode(hmac.digest(key, signed.encode(), 'sha256'))}"


def places_of(secrets: list[str], public: str) -> dict[str, list[str]]:
    """Return where texts can be read: command lines, environments, logs, stored files, the status, and Ray's GCS.

    Args:
        secrets: Texts that are to be nowhere.
        public: A text that is stored with the options.
    """
    found: dict[str, list[str]] = {text: [] for text in (*secrets, public)}

    def look(place: str, data: bytes) -> None:
        for text, places in found.items():
            if text.encode() in data:
                places.append(place)

    status = sdk.status()
    look("sdk.status()", repr(status).encode())
    look("sdk status --json", json.dumps(asdict(status), default=str).encode())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                with contextlib.suppress(OSError):  # it has ended
                    look(f"{entry.name} {name}", (entry / name).read_bytes())
    session = Path(ray.worker.global_worker.node.get_session_dir_path())
    for folder in (session / "logs", ingress_folder(status.proxies[0].node_id)):
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # it was replaced or removed just now
                if path.is_file():
                    look(str(path), path.read_bytes())
    gcs = commands("gcs_server ")
    for pid in [pid for pid, words in gcs.items() if str(session) in words]:
        for data in memory_of(pid):
            look(f"memory of the GCS {pid}", data)
    return found


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield the writable memory of a process of this user."""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, mode = line.split()[:2]
            first, end = (int(each, 16) for each in area.split("-"))
            if mode.startswith("rw"):
                with contextlib.suppress(OSError):  # it was given back meanwhile
                    memory.seek(first)
                    yield memory.read(end - first)


def test_the_services_that_clients_reach_change(before: sdk.GrpcOptions, channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    sdk.start(replace(before, grpc_servicer_functions=(OTHER,)))
    assert codes(stub, FOO) == {"UNIMPLEMENTED"}
    sdk.start(before)
    assert codes(stub, FOO) == {"OK"}


def test_fixed_options_are_named_and_nothing_changes(before: sdk.GrpcOptions) -> None:
    running_before = running()
    with pytest.raises(sdk.IngressError) as raised:
        sdk.start(replace(before, access_log="/var/log/calls", request_timeout_s=7.0, max_metadata_bytes=4096))
    text = str(raised.value)
    assert "request_timeout_s None → 7.0" in text
    assert "and max_metadata_bytes, access_log can't change at run time" in text
    assert "sdk shutdown" in text
    assert running() == running_before
