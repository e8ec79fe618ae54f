"""The lines of Ray's log monitors that `sdk run` shows."""

from __future__ import annotations

from typing import Any

import pytest
from ray._private import worker

from sdk.cli.run.application_output import lines_of, show_output


def batch(actor: str, *lines: str, **more: Any) -> dict[str, Any]:
    return {"actor_name": actor, "task_name": "", "pid": "7", "is_err": False, "lines": list(lines), **more}


@pytest.mark.parametrize("is_local", [True, False])
def test_replicas_of_the_applications(is_local: bool) -> None:
    shown = lines_of(batch("ServeReplica:shop:Till", "one", "two"), ["shop"], is_local=is_local)
    assert shown == ["(shop:Till pid=7) one", "(shop:Till pid=7) two"]
    assert lines_of(batch("ServeReplica:other:Till", "one"), ["shop"], is_local=is_local) == []


def test_tasks_and_actors_of_the_applications_on_a_ray_of_the_command() -> None:
    for lines in (batch("Warehouse", "one"), batch("", "one", task_name="Warehouse")):
        assert lines_of(lines, ["shop"], is_local=True) == ["(Warehouse pid=7) one"]
        assert lines_of(lines, ["shop"], is_local=False) == []


@pytest.mark.parametrize("name", ["ServeController", "ProxyActor", ""])
def test_rays_own_processes_are_left_out(name: str) -> None:
    assert lines_of(batch(name, "one", pid="autoscaler"), ["shop"], is_local=True) == []


def test_it_takes_the_place_of_what_ray_prints(capsys: pytest.CaptureFixture[str]) -> None:
    dispatcher, shown, names = worker.global_worker_stdstream_dispatcher, [], []
    dispatcher.add_handler("ray_print_logs", print)
    before = worker.global_worker._filter_logs_by_job
    try:
        with show_output(names, lambda *line: shown.append(line), is_local=False):
            dispatcher.emit(batch("ServeReplica:shop:Till", "too early"))
            names.append("shop")
            dispatcher.emit(batch("ServeReplica:shop:Till", "one"))
            dispatcher.emit(batch("ServeReplica:shop:Till", "two", is_err=True))
        dispatcher.emit(batch("ServeReplica:shop:Till", "too late"))
    finally:
        worker.global_worker._filter_logs_by_job = before
    assert shown == [("(shop:Till pid=7) one", False), ("(shop:Till pid=7) two", True)]
    assert capsys.readouterr().out == ""
