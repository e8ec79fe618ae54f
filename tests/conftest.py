"""One Ray cluster and one ingress for the whole test session, and which tests share a process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_timeout
import uvloop
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from xdist.scheduler import LoadScopeScheduling

from tests.support.cluster import Ingress, first_alone, set_import_path
from tests.support.ports import free_port
from tests.support.small_ray import leave_out_processes
from tests.support.time_limit import TimeLimit
from tests.support.virtual_time import VirtualLoop

# pyright would look for a newer version in the network, and print it among its findings.
os.environ["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
# Ray's agent would read the figures of every process of the machine every five seconds.
os.environ["REPORTER_UPDATE_INTERVAL_MS"] = "60000"
# For arrays as small as those of tests, more threads cost CPU time when NumPy is imported, and again when they wait.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Ray starts workers with niceness 15: replicas and the ingress would get no CPU time while tests keep all cores busy.
os.environ.update(RAY_worker_niceness="0")
# Ray Serve's controller works through all deployments ten times a second by default, which takes 4 % of a core.
os.environ["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"] = "0.2"

# A shell that starts us in the background, or nohup, lets us ignore these, and so would every command of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Ray asks for this thread's event loop. One that asyncio makes for it would be dropped, unclosed, by the first
# `asyncio.run` of any test.
_loop = asyncio.new_event_loop()
atexit.register(_loop.close)
asyncio.set_event_loop(_loop)


_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "virtual": VirtualLoop,
}

# `make test` tries the same examples every time, so that a change and nothing else makes it fail. `make fuzz` looks for
# other ones, at random, tries first those that failed before, and keeps what it finds. An example may take any time.
settings.register_profile(
    "deterministic",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # it measures the machine
)
settings.register_profile(
    "search",
    max_examples=max(100, round(15 * float(os.environ.get("FUZZ_SECONDS", "60")))),
    database=DirectoryBasedExampleDatabase(Path(__file__).parents[1] / "fuzz-failures" / "examples"),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("deterministic")  # pytest's --hypothesis-profile loads another one after this


# Which tests share a process, when there are several: those that start their own Ray, two groups of those with the
# session's cluster, of which each process has one, and those with the browser. All others stay together with those of
# their module, and their fixtures. The first group whose prefix fits counts. The groups with Ray begin first: they take
# longest, and mostly wait. More clusters at a time would take longer: Ray's own processes keep both cores busy. Tests
# that wait for Envoy or for connections come next: at the end few processes have tests, and a core would wait too.
_GROUPS = {
    "own Ray": (
        "tests/cli/run/test_run.py",
        "tests/cli/run/test_run_config.py",
        "tests/cli/run/test_run_tls.py",
        "tests/cli/test_newcomer.py",
        "tests/examples/test_pod.py",
        "tests/integration/test_ends_of_ray.py",
        "tests/integration/test_several_nodes.py",
        "tests/integration/test_ways_in.py",
        "tests/packaging/",
    ),
    "cluster with faults": (
        "tests/chaos/",
        "tests/integration/probing/",
        "tests/integration/test_faults.py",
        "tests/interop/",
    ),
    "cluster": (
        "tests/examples/test_examples_on_a_cluster.py",
        "tests/integration/",
    ),
    "browser": ("tests/browser/",),
}
_WITH_RAY = _GROUPS.keys() - {"browser"}
_WAITING = ("tests/ingress/envoy/", "tests/security/", "tests/wire/", "tests/xds/")


def _group(nodeid: str) -> str:
    found = (group for group, prefixes in _GROUPS.items() if nodeid.startswith(prefixes))
    return next(found, nodeid.partition("::")[0])


class _Sharing(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Sharing(config, log)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """An async test runs on a loop of asyncio, unless its marker names another kind."""
    marker = item.get_closest_marker("asyncio")
    return _LOOPS if marker is not None and "loop_factories" in marker.kwargs else {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what a collection makes out of every later garbage collection: it lives as long as the process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, object, object]:
    """Let one process compile a module: without byte code, each would rewrite every assertion."""
    if not isinstance(collector, pytest.Module):
        return (yield)
    with first_alone(collector.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, object, object]:
    items.sort(key=lambda item: (_group(item.nodeid) not in _WITH_RAY, not item.nodeid.startswith(_WAITING)))
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()) and not _group(item.nodeid).startswith("cluster"):
            raise pytest.UsageError(f"{item.nodeid} needs the session's cluster: name its file in tests/conftest.py")
    with first_alone("constants"):  # Hypothesis reads the sources of all modules for them, and has a cache
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Send one report of a test to the process that collects them, not six messages, of which five say nothing."""
    if not hasattr(item.config, "workerinput") or item.config.option.durations is not None:
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


_time_limit = TimeLimit()


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool:
    """Watch the time limits of all tests in one thread, not in one for each test."""
    _time_limit.set(settings.timeout, partial(pytest_timeout.timeout_timer, item, settings))
    return True


def pytest_timeout_cancel_timer() -> bool:
    _time_limit.lift()
    return True


_CURRENT_GROUP = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.session.stash[_CURRENT_GROUP] = _group(item.nodeid)


# What ends the session's cluster and its ingress.
_cluster_end = contextlib.ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the cluster after the last test of the group that uses it: it costs a seventh of a core while it runs."""
    is_last = nextitem is not None and _group(nextitem.nodeid) != _group(item.nodeid)
    if is_last and hasattr(item.config, "workerinput") and _group(item.nodeid).startswith("cluster"):
        _cluster_end.close()


def _reads_metrics(session: pytest.Session) -> bool:
    """Return False if no test of this process reads the metrics of Ray's agent: another process has those that do."""
    return not hasattr(session.config, "workerinput") or session.stash[_CURRENT_GROUP] == "cluster"


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    import ray

    has_metrics = _reads_metrics(request.session)
    leave_out_processes(has_metrics=has_metrics, has_runtime_env=has_metrics)  # the same tests have both
    # Workers inherit the environment of the processes that Ray starts now.
    set_import_path()
    ray.init(
        address="local",
        num_cpus=16,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        # 10 s by default, and tests wait for three of them. Ray's agent works on each report of each process, so no
        # process reports where no test reads.
        _system_config={"metrics_report_interval_ms": 2500} if has_metrics else {"enable_metrics_collection": False},
    )
    _cluster_end.callback(ray.shutdown)
    yield
    _cluster_end.close()


@pytest.fixture(scope="session")
def ingress(ray_cluster: None) -> Ingress:
    import sdk

    port = free_port()
    # Interop sends messages of 100 MB.
    sdk.start(sdk.GrpcOptions(port=port, max_receive_message_length=128 << 20, access_log="stdout"))
    _cluster_end.callback(sdk.shutdown)
    return Ingress(f"127.0.0.1:{port}", port)


@pytest.fixture
def channel(ingress: Ingress) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(ingress.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def deploy(ingress: Ingress) -> Iterator[Callable[[Any, str], None]]:
    """Run an application; it is deleted at the end of the module."""
    import sdk
    from sdk._serve.api import delete

    names: list[str] = []

    def run(app: Any, name: str) -> None:
        if name not in names:
            names.append(name)
        sdk.run(app, name=name)

    yield run
    with ThreadPoolExecutor() as threads:
        list(threads.map(delete, names))
