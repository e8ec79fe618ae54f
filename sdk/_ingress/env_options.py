"""Options of the ingress from environment variables, such as ``SDK_GRPC_PORT=9001``, if nothing calls ``sdk.start``."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sdk.errors import OptionsError
from sdk.options import GrpcOptions

PREFIX = "SDK_GRPC_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def variable(option: str) -> str:
    """Return the name of an option's environment variable, ``"SDK_GRPC_PORT"`` for ``"port"``."""
    return PREFIX + option.upper()


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that environment variables set, by name. Empty variables are ignored.

    Args:
        environment: Variables by name, such as ``os.environ``. Items of lists are separated by commas.

    Raises:
        OptionsError: A variable has no option or an invalid value. Lists every one.

    Example:
        >>> from_environment({"SDK_GRPC_PORT": "9001", "SDK_GRPC_ROUTE_BY_SERVICE": "true", "HOME": "/root"})
        {'port': 9001, 'route_by_service': True}
    """
    readers = {variable(name): (name, _reader(hint)) for name, hint in get_type_hints(GrpcOptions).items()}
    known = {name: (option, read) for name, (option, read) in readers.items() if read is not None}
    options: dict[str, Any] = {}
    wrong = []
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or not text:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            wrong.append(f"{name} is not an option of the ingress" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        option, read = known[name]
        try:
            options[option] = read(text.strip())
        except ValueError as error:
            wrong.append(f"{name} must be {error}, not {text!r}")
    if not wrong:
        try:
            GrpcOptions(**options)
        except OptionsError as error:
            wrong.append(str(error))
    if wrong:
        raise OptionsError(f"environment variables {PREFIX}…: {'; '.join(wrong)}")
    return options


def _reader(hint: Any) -> Callable[[str], Any] | None:
    """Return the function that parses an option of this type; None if the type has no text form."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        return lambda text: tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(hint) is Literal:
        return str
    readers: dict[Any, Callable[[str], Any]] = {bool: _read_bool, int: _read_int, float: _read_float, str: str}
    return readers.get(hint)


def _read_bool(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError("true or false")
    return text.lower() in _TRUE


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _read_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None
