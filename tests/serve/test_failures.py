"""The reason of a failed start, in one line, from the tracebacks that Ray Serve reports."""

from __future__ import annotations

import traceback

import pytest

from sdk._serve.failures import raised_in


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
    told = raised_in(f"The deployment failed to start 3 times in a row. Error:\nray::init() (pid=1)\n{text}")
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
