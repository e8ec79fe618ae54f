"""The guide's example, in the guide's order: its applications, its client code, its outputs.

The tests build on each other: the guide deploys one application, then a second, then replaces the first.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import app1
import app3
import client
import pytest

if TYPE_CHECKING:
    import grpc

Deploy = Callable[[Any, str], None]


# scikit-learn is imported where a test needs it: every process of the tests imports this module.


@pytest.fixture(scope="module")
def model() -> Path:
    import digits

    return digits.train()


@pytest.fixture(scope="module")
def one_app(deploy: Deploy) -> None:
    deploy(app1.g, "app1")


@pytest.fixture(scope="module")
def two_apps(one_app: None, model: Path, deploy: Deploy) -> None:
    import app2

    deploy(app2.g2, "app2")


@pytest.fixture(scope="module")
def context_app(two_apps: None, deploy: Deploy) -> None:
    deploy(app3.g, "app1")


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().out.splitlines()


@pytest.fixture
def digit_url() -> Iterator[str]:
    import digits
    from demo import serving

    with serving(digits.digit_png(3)) as url:
        yield url


def test_greets(one_app: None, channel: grpc.Channel, lines: Callable[[], list[str]]) -> None:
    client.greet(channel)
    assert lines() == ["status code: StatusCode.OK", "greeting: Hello foo from bar", "num: 60"]


def test_health(one_app: None, channel: grpc.Channel, lines: Callable[[], list[str]]) -> None:
    client.health(channel)
    assert lines() == ["Applications: ['app1']", "Health: success"]


def test_takes_metadata_and_returns_the_request_id(
    one_app: None, channel: grpc.Channel, lines: Callable[[], list[str]]
) -> None:
    client.metadata(channel)
    assert lines() == [
        "greeting: Method2 called model, loading model: 999",
        "trailing metadata key: request_id, value 123",
    ]


def test_streams_ten_messages(one_app: None, channel: grpc.Channel, lines: Callable[[], list[str]]) -> None:
    client.streaming(channel)
    expected = ((f"greeting: {i}: Hello foo from bar", f"num: {60 + i}") for i in range(10))
    assert lines() == [line for pair in expected for line in pair]


def test_classifies_an_image_through_handles(
    two_apps: None, channel: grpc.Channel, digit_url: str, lines: Callable[[], list[str]]
) -> None:
    client.predict(channel, digit_url)
    code, classes, probabilities = (line.partition(": ")[2] for line in lines())
    ranked = ast.literal_eval(probabilities)
    assert code == "StatusCode.OK"
    assert ast.literal_eval(classes)[0] == "3"
    assert len(ranked) == 5
    assert ranked == sorted(ranked, reverse=True)
    assert 0.9 < ranked[0] <= 1


def test_two_applications_and_no_application_metadata_is_not_found(
    two_apps: None, channel: grpc.Channel, lines: Callable[[], list[str]]
) -> None:
    client.errors(channel)
    client.health(channel)
    code, details, applications, _ = lines()
    assert code == "status code: StatusCode.NOT_FOUND"
    assert details.startswith("details: Application metadata not set.")
    assert applications == "Applications: ['app1', 'app2']"


def test_sets_code_details_and_trailing_metadata_through_the_context(
    context_app: None, channel: grpc.Channel, lines: Callable[[], list[str]]
) -> None:
    client.context(channel)
    assert lines() == [
        "first call: StatusCode.INVALID_ARGUMENT: foo not found, adding to nums.",
        "second call: StatusCode.OK, num 0",
    ]
