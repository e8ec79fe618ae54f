from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sdk import GrpcOptions, OptionsError
from sdk.options import LIVE_OPTIONS

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "options.md"


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
        ("keepalive_time_s", 0.5),
        ("keepalive_timeout_s", None),
        ("max_connection_idle_s", -1),
        ("max_connection_age_s", float("inf")),
        ("grpc_servicer_functions", "greet.Greeter"),
        ("console", "yes"),
    ],
)
def test_an_invalid_value_is_reported(name: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=f"^GrpcOptions: {name} must be .*not {value!r}"):
        GrpcOptions(**{name: value})


def test_every_invalid_value_is_reported_at_once() -> None:
    with pytest.raises(OptionsError) as raised:
        GrpcOptions(port=-1, error_details="all")  # type: ignore[arg-type]
    assert "port must be" in str(raised.value)
    assert "error_details must be" in str(raised.value)


@pytest.mark.parametrize("name", ["request_timeout_s", "keepalive_time_s", "max_connection_idle_s"])
def test_none_means_no_limit(name: str) -> None:
    assert getattr(GrpcOptions(**{name: None}), name) is None  # type: ignore[arg-type]  # which option, mypy can't know


def test_the_console_is_served_on_loopback_addresses_unless_it_is_chosen() -> None:
    assert "/console" in GrpcOptions().pages
    assert "/console" in GrpcOptions(host="::1").pages
    assert GrpcOptions(host="0.0.0.0").pages == ("/docs",)
    assert GrpcOptions(host="0.0.0.0", console=True, docs=False).pages == ("/console",)
    assert GrpcOptions(console=False, docs=False).pages == ()


@pytest.mark.parametrize("names", [(), ("greet.",), (3,), ("a b",)])
def test_invalid_names_of_services(names: Any) -> None:
    with pytest.raises(OptionsError, match=r"^GrpcOptions: grpc_servicer_functions must "):
        GrpcOptions(grpc_servicer_functions=names)


def test_a_list_of_services_from_a_config_file() -> None:
    options = GrpcOptions(grpc_servicer_functions=["greet.Greeter"])  # type: ignore[arg-type]  # as files have it
    assert options.grpc_servicer_functions == ("greet.Greeter",)
    hash(options)


def test_every_option_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^|]*)` \|", DOCS.read_text(), re.MULTILINE)
    assert dict(rows) == {field.name: str(field.default) for field in fields(GrpcOptions)}


def test_differences() -> None:
    assert GrpcOptions().differences(GrpcOptions()) == ""
    assert GrpcOptions().differences(GrpcOptions(port=9001)) == "port 9000 → 9001"


def test_fixed_differences() -> None:
    assert GrpcOptions().fixed_differences(GrpcOptions(port=9001, access_log="/log", route_by_service=True)) == (
        "port",
        "access_log",
    )


def test_live_options_are_documented() -> None:
    (section,) = re.findall(r"^## What changes while it runs\n(.*?)^## ", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^- `(\w+)`", section, re.MULTILINE)) == LIVE_OPTIONS
    for name in LIVE_OPTIONS:
        assert f"``{name}``" in str(GrpcOptions.__doc__).split("Attributes:")[0]
