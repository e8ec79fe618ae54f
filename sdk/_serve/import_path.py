"""The import path of replicas, when another program has started Ray Serve.

Ray gives the folders of a program to the workers that it starts for that program
(https://docs.ray.io/en/latest/ray-core/handling-dependencies.html). Replicas are started by Ray Serve's controller, so
they get the folders of the program that started Ray Serve: often another one, in another folder.
"""

from __future__ import annotations

import filecmp
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from sdk._serve.deployed_classes import bound_deployments
from sdk._serve.hidden_modules import hiding_module
from sdk._serve.internals import find_serve_controller
from sdk.errors import ApplicationError

if TYPE_CHECKING:
    from ray import serve

# With one of these in its runtime_env, a deployment has modules that are not those of this program's folders.
_BRINGS_CODE = ("working_dir", "py_modules")
_VARIABLE = "PYTHONPATH"


def give_import_path(application: serve.Application) -> None:
    """Let the replicas of an application import from this program's folders, if another program started Ray Serve.

    Args:
        application: The result of ``bind``; its deployments get a ``runtime_env``, except those that bring their own
            code or set ``PYTHONPATH``.

    Raises:
        ApplicationError: The other program's folders have other modules of the same names.
    """
    if has_own_serve():
        return
    of_program, folders = ray.get_runtime_context().runtime_env, import_path()
    refuse_hidden_modules(folders)
    for deployment in bound_deployments(application):
        options = deployment.ray_actor_options
        environment = with_import_path(options.get("runtime_env"), of_program, folders)
        if environment is not None:
            options["runtime_env"] = environment


def refuse_hidden_modules(path: str) -> None:
    """Check that replicas import the modules that this program has imported from its folders, not others so named.

    Ray has a worker import from the folders of the program that started Ray Serve before those in its ``PYTHONPATH``,
    and before its ``working_dir``.

    Args:
        path: The ``PYTHONPATH`` for replicas.

    Raises:
        ApplicationError: They would import another module of the same name. Folders that this machine does not have are
            not known.
    """
    own = _folders_of(path)
    hidden = list(hidden_modules(own, [folder for folder in _folders_of_serve() if folder not in own]))
    if hidden:
        ours, theirs = hidden[0]
        more = f" (and others in place of {len(hidden) - 1} more modules)" if len(hidden) > 1 else ""
        raise ApplicationError(
            f"Replicas would import {theirs} in place of {ours}{more}: they import first from the folders of the "
            "program that started Ray Serve. Rename the module, or use another Ray (`sdk run --address local`)."
        )


def hidden_modules(own: Sequence[str], first: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Find imported modules instead of which another one would be imported if other folders came first.

    Args:
        own: Folders from which this program imports.
        first: The other folders.

    Yields:
        The file of a module, and what would be imported instead. Equal files do no harm.
    """
    for name, module in sorted(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        for folder in own:
            if file is None or not file.startswith((f"{folder}/{top}/", f"{folder}/{top}.")):
                continue
            for other in first:
                twin = Path(other + file.removeprefix(folder))
                hiding = hiding_module(Path(other), top) or (str(twin) if twin.exists() else None)
                if hiding is not None and not (twin.exists() and filecmp.cmp(file, twin, shallow=False)):
                    yield file, hiding


def _folders_of_serve() -> list[str]:
    """Return the folders that Ray gives to the workers of the program that started Ray Serve."""
    controller = find_serve_controller()
    if controller is None:
        return []
    worker: Any = ray._private.worker.global_worker
    jobs = worker.gcs_client.get_all_job_info(skip_submission_job_info_field=True, skip_is_running_tasks_field=True)
    job = jobs.get(controller._actor_id.job_id)
    return list(job.config.py_driver_sys_path) if job is not None else []


def has_own_serve() -> bool:
    """Return whether no other program started Ray Serve, so that its workers import from this program's folders."""
    controller = find_serve_controller()
    return controller is None or controller._actor_id.job_id.hex() == ray.get_runtime_context().get_job_id()


def with_import_path(own: Mapping[str, Any] | None, of_program: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """Return the ``runtime_env`` for a deployment, or None if it needs no other than it has.

    Args:
        own: The deployment's.
        of_program: The program's. Ray Serve gives it to deployments without one, and its ``working_dir`` to all.
        path: The value of ``PYTHONPATH``.

    Example:
        >>> with_import_path({"env_vars": {"A": "b"}}, {}, "/home/me/shop")
        {'env_vars': {'PYTHONPATH': '/home/me/shop', 'A': 'b'}}
    """
    environment = dict(of_program if own is None else own)
    variables = dict(environment.get("env_vars") or {})
    if _VARIABLE in variables or of_program.get("working_dir") or any(environment.get(key) for key in _BRINGS_CODE):
        return None
    return {**environment, "env_vars": {_VARIABLE: path, **variables}}


def import_path() -> str:
    """Return the folders that Ray gives to a program's own workers, and ``PYTHONPATH``."""
    return os.pathsep.join(dict.fromkeys([*_own_folders(), *_folders_of(os.environ.get(_VARIABLE, ""))]))


def refuse_hidden_package() -> None:
    """Check that the folders which Ray gives to a program's workers have no ``sdk`` that hides this one.

    The program itself may have imported this one: Python does not look into the working directory of a script.

    Raises:
        ApplicationError: One has.
    """
    for folder in _own_folders():
        hiding = hiding_module(Path(folder), "sdk")
        if hiding is not None:
            raise ApplicationError(
                f"{hiding} hides the package 'sdk' of ray-grpc-sdk from replicas, which import from {folder} first: "
                "rename it, or start the program in another folder"
            )


def _own_folders() -> list[str]:
    script = str(Path(sys.argv[0]).resolve().parent)
    return [*([script] if script in sys.path else []), str(Path.cwd())]


def _folders_of(path: str) -> list[str]:
    return [folder for folder in path.split(os.pathsep) if folder]
