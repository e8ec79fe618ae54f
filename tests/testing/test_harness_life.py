"""Start and stop of a test server: it calls hooks as Ray Serve does, and leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from fastapi import FastAPI
from harness_pb2 import Text
from harness_sdk import GreeterSyncClient
from ray import serve

import sdk.testing
from sdk import OptionsError, grpc_deployment
from tests.support.cluster import ROOT
from tests.testing.harness_apps import STUCK, Broken, Greeter, Hooked, Plain, Stuck

pytestmark = pytest.mark.timeout(60)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("sdk-testing-*"))


def children() -> set[int]:
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found.update(map(int, path.read_text().split()))
    return found


def own_threads() -> set[threading.Thread]:
    # grpc's own poller stays with the process, as it does for every user of grpc.aio.
    return {thread for thread in threading.enumerate() if "_poll_wrapper" not in thread.name}


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="left-") as folder:  # other processes don't use this folder
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield from _nothing_left()


def _nothing_left() -> Iterator[None]:
    def new() -> list[Any]:
        return [sorted(map(str, now() - before)) for now, before in zip(kinds, known, strict=True)]

    kinds: tuple[Callable[[], set[Any]], ...] = (folders, children, own_threads)
    known = [kind() for kind in kinds]
    serves_own = serve.context._get_internal_replica_context
    yield
    assert until(lambda: not any(new())), new()
    assert serve.context._get_internal_replica_context is serves_own


@pytest.mark.usefixtures("nothing_left")
def test_the_end_of_the_block_stops_everything() -> None:
    was_connected = ray.is_initialized()
    with sdk.testing.serve(Greeter.bind()) as server:
        server.client(GreeterSyncClient).SayHello(Text())
        assert is_alive(server.envoy_pid)
    assert ray.is_initialized() is was_connected


@pytest.mark.usefixtures("nothing_left")
def test_a_failing_test_stops_everything() -> None:
    with pytest.raises(ZeroDivisionError), sdk.testing.serve(Greeter.bind()):
        raise ZeroDivisionError


@pytest.mark.usefixtures("nothing_left")
def test_an_exception_of_a_constructor_is_raised_in_the_test() -> None:
    with (
        pytest.raises(LookupError, match=r"^'no model'$|^no model$") as caught,
        sdk.testing.serve(Greeter.bind(), other=Broken.bind(LookupError("no model"))),
    ):
        pass
    assert type(caught.value) is LookupError


@pytest.mark.usefixtures("nothing_left")
def test_an_interrupt_while_a_constructor_waits_stops_everything() -> None:
    def interrupt() -> None:
        STUCK.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), sdk.testing.serve(Stuck.bind()):
        pass
    thread.join()


@pytest.mark.usefixtures("nothing_left")
async def test_a_cancelled_start_stops_everything() -> None:
    async def start() -> None:
        async with sdk.testing.serve(Greeter.bind()):
            raise AssertionError("it was to be cancelled")

    task = asyncio.ensure_future(start())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("nothing_left")
def test_servers_stop_in_any_order() -> None:
    first, second = sdk.testing.serve(Greeter.bind("first")), sdk.testing.serve(Greeter.bind("second"))
    with first:
        client = second.__enter__().client(GreeterSyncClient)
        assert first.client(GreeterSyncClient).SayHello(Text()).text == "first "
    assert client.Tell(Text(), request_id="r").text == "r  default Greeter"
    second.__exit__(None, None, None)


def test_a_server_is_started_once() -> None:
    server = sdk.testing.serve(Greeter.bind())
    with pytest.raises(RuntimeError, match=r"not started: write `with sdk\.testing\.serve\(\.\.\.\) as server:`$"):
        server.client(GreeterSyncClient)
    with server:
        pass
    for use in (server.channel, server.aio_channel, server.handle, lambda: server.inject(latency_s=1)):
        with pytest.raises(RuntimeError, match=r"^the test server has ended, with its `with` block$"):
            use()
    with pytest.raises(RuntimeError, match=r"started once; call sdk\.testing\.serve again"), server:
        pass


def test_hooks_are_called_in_ray_serves_order() -> None:
    with sdk.testing.serve(Hooked.bind([])) as server:
        seen = server.instance(Hooked).seen
        assert seen == ["constructed", "configured", "healthy"]
    assert seen == ["constructed", "configured", "healthy", "deleted"]


def test_a_user_config_needs_reconfigure() -> None:
    with (
        pytest.raises(OptionsError, match="Greeter: there is a user_config, and the class has no method `reconfigure`"),
        sdk.testing.serve(Greeter.options(user_config={"a": 1}).bind()),
    ):
        pass


def test_an_unhealthy_deployment_does_not_start() -> None:
    @grpc_deployment
    class Ill(Greeter):
        def check_health(self) -> None:
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"), sdk.testing.serve(Ill.bind()):
        pass


def test_a_destructor_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @grpc_deployment
    class Sore(Greeter):
        def __del__(self) -> None:
            raise OSError("can't let go")

    with sdk.testing.serve(Sore.bind()):
        pass
    assert [record.message for record in caplog.records if record.name == "sdk.testing"] == ["Sore.__del__ failed"]


def test_envoy_ends_with_a_process_that_is_killed_and_its_folder_with_the_next_start(monkeypatch: Any) -> None:
    # The path of a unix socket is short, and pytest's folders are deep.
    with tempfile.TemporaryDirectory(prefix="killed-") as folder:
        _kill_one(Path(folder), monkeypatch)


def _kill_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(
        "import sys, time; sys.path[:0] = sys.argv[1:]\n"
        "import sdk.testing; from tests.testing.harness_apps import Greeter\n"
        "with sdk.testing.serve(Greeter.bind()) as server:\n"
        "    print(server.envoy_pid, server.target, flush=True)\n"
        "    time.sleep(60)\n"
    )
    import harness_pb2

    paths = [str(ROOT), str(Path(str(harness_pb2.__file__)).parent)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # removed with this test
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), *paths], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[0])
        assert is_alive(pid)
        (folder,) = tmp_path.glob("sdk-testing-*")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with sdk.testing.serve(Greeter.bind()):
            assert folder.exists(), "it belongs to a live process"
        process.kill()
    assert until(lambda: not is_alive(pid))
    assert folder.exists()
    with sdk.testing.serve(Greeter.bind()):
        assert not folder.exists()
    assert not folders()


def test_an_asgi_application_starts_and_ends_with_its_class(tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        (tmp_path / "started").touch()  # a file: Ray Serve pickles the application
        yield
        (tmp_path / "ended").touch()

    @sdk.grpc_deployment
    @serve.ingress(FastAPI(lifespan=lifespan))
    class Both(Plain): ...

    with sdk.testing.serve(Both.bind()) as server:
        assert server.client(GreeterSyncClient).SayHello(Text(text="you")).text == "hello you"
        assert os.listdir(tmp_path) == ["started"]
    assert sorted(os.listdir(tmp_path)) == ["ended", "started"]
