"""The reason of a failed start, in one line, from the tracebacks that Ray Serve reports."""

from __future__ import annotations

import traceback
from types import SimpleNamespace

import pytest

from sdk._serve import failures
from sdk._serve.failures import messages_of, raised_in


def load(number: int) -> None:
    raise ValueError(f"no weights\n{number}")


def errors(count: int) -> list[Exception]:
    found = []
    for number in range(count):
        try:
            load(number)
        except ValueError as error:
            found.append(error)
    return found


def raise_group(count: int) -> None:
    raise ExceptionGroup("models", errors(count))


def raise_nested() -> None:
    raise ExceptionGroup("all", [ExceptionGroup("models", errors(1)), KeyError("a")])


def raise_chained() -> None:
    try:
        raise_group(1)
    except ExceptionGroup as group:
        raise OSError("no | models") from group


def described(function: object, *args: object) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # any of the functions above
        function(*args)  # type: ignore[operator]  # mypy knows no function
    text = "".join(traceback.format_exception(caught.value))
    told = raised_in(f"The deployment has failed. Error:\nray::init() (pid=1)\n{text}")
    for line in sorted({frame.lineno for frame in traceback.extract_tb(caught.value.__traceback__)}):
        told = told.replace(f"test_failures.py:{line},", "test_failures.py:N,")
    return told.replace(f":{load.__code__.co_firstlineno + 1},", ":N,")


ONE = "ValueError: no weights 0 (tests/serve/test_failures.py:N, in load)"


@pytest.mark.parametrize(
    ("function", "args", "reason"),
    [
        (load, (0,), ONE),
        (
            raise_group,
            (2,),
            "ExceptionGroup: models (2 sub-exceptions) (tests/serve/test_failures.py:N, in raise_group): "
            f"{ONE}; {ONE.replace('0', '1')}",
        ),
        (
            raise_group,
            (5,),
            "ExceptionGroup: models (5 sub-exceptions) (tests/serve/test_failures.py:N, in raise_group): "
            f"{ONE}; {ONE.replace('0', '1')}; {ONE.replace('0', '2')}; 2 more",
        ),
        (raise_chained, (), "OSError: no | models (tests/serve/test_failures.py:N, in raise_chained)"),
        (
            raise_nested,
            (),
            "ExceptionGroup: all (2 sub-exceptions) (tests/serve/test_failures.py:N, in raise_nested): "
            f"ExceptionGroup: models (1 sub-exception); {ONE}; KeyError: 'a'",
        ),
    ],
)
def test_the_reason(function: object, args: tuple[int, ...], reason: str) -> None:
    assert described(function, *args) == reason


RETRYING = "A replica failed to start with exception. Retrying"


@pytest.mark.parametrize(
    ("before", "tries"),
    [
        ("The deployment failed to start 3 times in a row. Error:", "; tried 3 times"),
        ("The deployment failed to start 1 times in a row. Error:", "; tried once"),
        (f"{RETRYING} 2 more time(s). Error:", "; Ray Serve tries it 2 more times"),
        (f"{RETRYING} 1 more time(s). Error:", "; Ray Serve tries it 1 more time"),
        (f"{RETRYING} 0 more time(s). Error:", ""),
        (f"{RETRYING}. Error:", ""),
    ],
)
def test_the_number_of_tries(before: str, tries: str) -> None:
    frame = 'Traceback (most recent call last):\n  File "/a/app.py", line 3, in __init__\n'
    text = f"{before}\n{frame}OSError: Retrying 7 more time(s)"
    assert raised_in(text) == f"OSError: Retrying 7 more time(s) (app.py:3, in __init__){tries}"


def test_messages_of_a_deployment_that_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'Traceback (most recent call last):\n  File "/a/app.py", line 3, in __init__\nOSError: no model'
    seen = []
    for left in (2, 1):
        message = f"A replica failed to start with exception. Retrying {left} more time(s). Error:\n{text}"
        deployments = {"Model": SimpleNamespace(message=message), "Ready": SimpleNamespace(message="")}
        found = {"shop": SimpleNamespace(deployments=deployments)}
        monkeypatch.setattr(failures, "application_overview", found.__getitem__)
        seen.append(messages_of("shop"))
    first, second = seen
    assert list(first) == list(second) == ["Model: OSError: no model (app.py:3, in __init__)"]  # reported once
    assert [*first.values(), *second.values()] == [
        "deployment Model: OSError: no model (app.py:3, in __init__); Ray Serve tries it 2 more times",
        "deployment Model: OSError: no model (app.py:3, in __init__); Ray Serve tries it 1 more time",
    ]
