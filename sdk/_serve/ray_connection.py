"""Connect this process to Ray: find the cluster, send the token that it requires, and report errors in one line.

Ray itself retries for half a minute when it can't reach a cluster or lacks its token, and may then end the process. So
one call to the GCS checks that first. It uses private names of Ray, checked with Ray 2.60.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import grpc
import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig

from sdk._error_text import one_line, os_reason
from sdk._serve.ray_processes import processes_of
from sdk.errors import ClusterError, SdkError

_REACH_S = 5.0
# A method of the GCS that changes nothing. An empty request is valid; other servers answer UNIMPLEMENTED.
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_TOKEN_DOCS = "https://docs.ray.io/en/latest/ray-security/token-auth.html"
_TAKE_TOKEN = (
    "take the cluster's token, which `ray get-auth-token` prints on its head node, and set RAY_AUTH_TOKEN to it or "
    f"write it to ~/.ray/auth_token ({_TOKEN_DOCS})"
)


def connect(address: str | None, **options: Any) -> None:
    """Connect to a running cluster.

    Args:
        address: The cluster's address; None for ``RAY_ADDRESS``, then for the one that runs on this machine.
        **options: Other arguments of ``ray.init``.

    Raises:
        ClusterError: No cluster runs, it can't be reached, or it rejects the token.
    """
    found = find_cluster(address)
    if found is None:
        raise ClusterError(
            "No Ray cluster is running on this machine: start one with `ray start --head`, or name one by its address."
        )
    check_reachable(found)
    with ray_errors(f"Ray at {found} can't be reached"):
        ray.init(address=found, **options)


def job_with_import_path() -> JobConfig:
    """Return the configuration of a job whose workers also import from the folders in this process's ``PYTHONPATH``.

    Ray itself adds the working directory. A ``runtime_env`` with the variable would do the same for more: Ray starts
    Python and imports itself twice for each worker that has one, for 0.4 s of CPU time.
    """
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    # A worker inserts one after the other at the start of its path.
    return JobConfig(_py_driver_sys_path=folders[::-1])


def start_local(**options: Any) -> None:
    """Start a local Ray that ends with this process, and connect to it.

    Args:
        **options: Arguments of ``ray.init``.

    Raises:
        ClusterError: It can't be started.
    """
    with ray_errors("A local Ray can't be started"):
        ray.init(address="local", **options)


def find_cluster(address: str | None) -> str | None:
    """Return the address of the cluster to connect to; None if none is named and none runs on this machine.

    Args:
        address: The address that the user named; None for ``RAY_ADDRESS``, then for one that runs on this machine.

    Raises:
        ClusterError: Several clusters run on this machine, and Ray does not say which was started last.
    """
    named = named_address(address)
    if named is not None:
        return named
    services: Any = ray._private.services
    running = sorted(services.find_gcs_addresses())
    newest = newest_address()
    if newest in running:
        return newest
    if len(running) > 1:
        listed = ", ".join(f"{each}{_origin(each)}" for each in running)
        raise ClusterError(
            f"Several Ray clusters are running on this machine ({listed}): name one by its address, with "
            "`--address` or RAY_ADDRESS."
        )
    return str(running[0]) if running else None


def _origin(address: str) -> str:
    """Return who started a cluster on this machine, and when, for a message; "" if its processes are not visible."""
    psutil: Any = ray._private.services.psutil  # type: ignore[attr-defined]
    for folder in processes_of(address):
        with contextlib.suppress(psutil.Error):  # it has ended
            process = psutil.Process(int(folder.name))
            started = datetime.fromtimestamp(process.create_time()).astimezone()
            return f" of {process.username()} since {started:%Y-%m-%d %H:%M}"
    return ""


def named_address(address: str | None) -> str | None:
    """Return the address that the user named, by an argument or by ``RAY_ADDRESS``; None without one."""
    named = address or os.environ.get("RAY_ADDRESS")
    return None if named == "auto" else named or None


def newest_address() -> str | None:
    """Return the address of the cluster that ``ray start`` has started last here; it may have been killed since."""
    services: Any = ray._private.services
    address: str | None = services.find_bootstrap_address(None)
    return address


def count_nodes() -> int:
    """Return the number of nodes of the cluster that are alive."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(node["Alive"] for node in nodes)


def node_resources() -> list[dict[str, float]]:
    """Return the resources of each node that is alive, by Ray's names: ``CPU``, ``GPU``, ``memory`` in bytes."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def dashboard_url() -> str:
    """Return the URL of Ray's dashboard; empty if the cluster has none."""
    node: Any = ray._private.worker._global_node
    found = node.webui_url
    return f"http://{found}" if found else ""


def gcs_address() -> str:
    """Return the address of the cluster that this process is connected to."""
    return str(ray.get_runtime_context().gcs_address)


def log_folder() -> str:
    """Return the folder of this node with the logs of Ray Serve and its replicas."""
    node: Any = ray._private.worker._global_node
    return os.path.join(node.get_logs_dir_path(), "serve")


def check_reachable(address: str) -> None:
    """Check that a cluster answers, and from now on send the token of this user if the cluster requires one.

    Args:
        address: ``HOST:PORT``, or ``ray://HOST:PORT``.

    Raises:
        ClusterError: It does not answer, there is no token, or it rejects the token.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    wrong = f"{address!r} is not the address of a Ray cluster; give HOST:PORT, such as 127.0.0.1:6379."
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ClusterError(wrong)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except UnicodeError:  # no host has such a name
        raise ClusterError(wrong) from None
    except OSError as error:
        raise ClusterError(f"Ray at {address} can't be reached: {os_reason(error)}.") from None
    refusal = _refusal(address, f"{host}:{port}")
    if refusal is None:
        return
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    with ray_errors(f"Ray at {address} requires a token"):
        has_token = _token_loader().has_token(ignore_auth_mode=True)
    reason = f"Ray at {address} requires a token ({refusal})"
    if not has_token:
        raise ClusterError(f"{reason}, and this user has none: {_TAKE_TOKEN}.")
    if mode == "disabled":
        raise ClusterError(f"{reason}, and RAY_AUTH_MODE=disabled prevents that it is sent: unset RAY_AUTH_MODE.")
    if not mode:
        # Ray does this only for a cluster that it was not given.
        _enable_token()
        refusal = _refusal(address, f"{host}:{port}")
    if refusal is not None:
        raise ClusterError(f"Ray at {address} rejects the token of {_token_source()} ({refusal}): {_TAKE_TOKEN}.")


@contextlib.contextmanager
def ray_errors(problem: str) -> Iterator[None]:
    """Turn whatever Ray raises into one line. Ray raises a bare ``Exception`` if it starts too slowly, for example.

    Args:
        problem: What failed.

    Raises:
        ClusterError: Ray raised an error.
    """
    try:
        yield
    except SdkError:
        raise
    except Exception as error:
        # Ray's error for a cluster that it can't reach names the reason only in its cause.
        reasons = dict.fromkeys(map(_describe, _chain(error)))
        raise ClusterError(f"{problem}: {': '.join(reasons)}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _describe(error: BaseException) -> str:
    # Ray Serve takes longer to import than Ray, and who only asks for a cluster does not need it.
    from ray.serve.exceptions import RayServeException

    text = one_line(error)
    # The text of others, such as a KeyError, says little without the class.
    if text and isinstance(error, (RayError, RayServeException, RuntimeError, OSError, ValueError)):
        return text
    kind = type(error).__name__
    return (f"{kind}: {text}" if type(error) is not Exception else text) if text else kind


def _refusal(address: str, target: str) -> str | None:
    """Return Ray's reason to refuse a call without authentication, or None.

    Raises:
        ClusterError: The server does not answer.
    """
    from ray._private.grpc_utils import init_grpc_channel

    with init_grpc_channel(target) as channel:  # it uses Ray's TLS, and the token if Ray's mode is "token"
        try:
            channel.unary_unary(_CHECK_ALIVE)(b"", timeout=_REACH_S)
        except grpc.RpcError as error:
            code, details = error.code(), one_line(error.details() or "")
            if code is grpc.StatusCode.UNAUTHENTICATED:
                return details
            if code is not grpc.StatusCode.UNIMPLEMENTED:
                raise ClusterError(f"Ray at {address} can't be reached: {code.name}: {details}") from None
    return None


def _token_loader() -> Any:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # it is compiled

    return AuthenticationTokenLoader.instance()


def _enable_token() -> None:
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _token_source() -> str:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
