from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sdk._xds.ads_server import ResourcesRejected
from tests.support.envoy_rig import rig

if TYPE_CHECKING:
    from pathlib import Path

GREET = "/demo.Greeter/SayHello"


async def test_each_call_is_logged_as_json_with_request_id_and_status(tmp_path: Path) -> None:
    log = tmp_path / "access.log"

    async def scenario() -> list[dict[str, Any]]:
        async with rig("a") as it:
            it.config = replace(it.config, access_log=str(log))
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
            assert await it.answers(GREET, ("request_id", 'a "b"'), ("multiplexed_model_id", "m")) == "a"
            assert await it.answers(GREET, ("application", "none")) == "NOT_FOUND"
            return [json.loads(line) for line in (await lines(log, 2)).splitlines()]

    served, refused = sorted(await scenario(), key=lambda line: str(line["status"]), reverse=True)
    expected = {"request_id": 'a "b"', "application": "one", "method": GREET, "status": "OK", "model_id": "m"}
    assert served.items() >= expected.items()
    assert served["peer"].startswith("127.0.0.1:")
    assert served["replica"]
    assert isinstance(served["duration_ms"], int)
    assert (served["request_bytes"], served["time"][:2]) == (5, "20")
    assert refused["status"] == "NOT_FOUND"
    assert len(refused["request_id"]) == 36, "the client got the same one"


async def test_a_log_file_that_can_not_be_opened_is_reported(tmp_path: Path) -> None:
    async with rig("a") as it:
        it.config = replace(it.config, access_log=str(tmp_path / "no" / "access.log"))
        with pytest.raises(ResourcesRejected, match=r"no/access\.log"):
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})


async def lines(path: Path, count: int) -> str:
    """Return the log when it has this many lines: Envoy flushes it periodically."""
    for _ in range(300):
        if path.exists() and (text := path.read_text()).count("\n") >= count:
            return text
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} lines in {path}")
