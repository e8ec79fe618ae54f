from __future__ import annotations

from typing import Any

import pytest

from sdk import GrpcOptions, OptionsError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "localhost"),
        ("port", 0),
        ("port", "9000"),
        ("port", True),
        ("port", 65536),
        ("proxy_location", "Disabled"),
        ("request_timeout_s", 0),
        ("request_timeout_s", "4"),
        ("error_details", "all"),
        ("max_receive_message_length", 0),
        ("max_metadata_bytes", 10),
        ("max_concurrent_streams", 1.5),
        ("envoy_concurrency", 0),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=f"^GrpcOptions: {name} must be .*not {value!r}"):
        GrpcOptions(**{name: value})


def test_every_wrong_value_is_told_at_once() -> None:
    with pytest.raises(OptionsError) as raised:
        GrpcOptions(port=-1, error_details="all")  # type: ignore[arg-type]
    assert "port must be" in str(raised.value)
    assert "error_details must be" in str(raised.value)


def test_differences() -> None:
    assert GrpcOptions().differences(GrpcOptions()) == ""
    assert GrpcOptions().differences(GrpcOptions(port=9001)) == "port 9000 → 9001"
