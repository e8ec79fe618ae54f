"""Resolves ``module:name`` of the command line: imports the module and looks up the name."""

from __future__ import annotations

import difflib
import importlib
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click

from sdk._contract import locations
from sdk._error_text import one_line
from sdk._proto_files.duplicate_names import duplicate_name
from sdk._serve.hidden_modules import hiding_module
from sdk.cli.errors import ModuleFailedError
from sdk.errors import ApplicationError, SdkError

F = TypeVar("F", bound=Callable[..., Any])

_MISSING = object()
_TRACEBACK = "SDK_TRACEBACK"
_IMPORTLIB = os.path.dirname(importlib.__file__)


def traceback_option(command: F) -> F:
    """Add ``--traceback`` to a command that imports modules of the user."""

    def remember(_: click.Context, __: click.Parameter, is_wanted: bool) -> None:
        if is_wanted:  # by a variable, so that the processes of `sdk run --reload` have it too
            os.environ[_TRACEBACK] = "1"

    return click.option(
        "--traceback",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help=f"Show the traceback of a module whose import fails, as {_TRACEBACK}=1 does.",
    )(command)


def load_target(spec: str) -> tuple[ModuleType, object | None]:
    """Import a module, with the working directory on ``sys.path``, and look up a name in it.

    Args:
        spec: ``"app"``, ``"package.app"``, ``"app:Greeter"`` or ``"app:name.attribute"``.

    Returns:
        The module, and the object; None if ``spec`` is only a module.

    Raises:
        ApplicationError: The module or the name does not exist.
        ModuleFailedError: An error ended the import of the module.
        SdkError: The SDK raised it in the module, such as a ``DefinitionError``.

    Example:
        >>> module, found = load_target("json:dumps")
        >>> found is module.dumps
        True
    """
    module_name, colon, name = spec.partition(":")
    _check_spelling(spec, module_name, name if colon else None)
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    _check_hidden(Path(here))
    module = _import(module_name)
    return module, _look_up(module, name) if colon else None


def _check_hidden(here: Path) -> None:
    """Refuse a working directory whose ``sdk`` hides ours, since replicas import from it; warn of ``codegen``."""
    for name in ("sdk", "codegen"):
        shown = hiding_module(here, name)
        if shown is not None:
            hidden = f"{shown} hides the module {name!r} of ray-grpc-sdk from programs in {here}: rename it"
            if name == "sdk":
                raise ApplicationError(hidden)
            click.echo(f"warning: {hidden}", err=True)


def _check_spelling(spec: str, module: str, name: str | None) -> None:
    if module.endswith(".py") or os.sep in module:
        dotted = ".".join(Path(module).with_suffix("").parts).lstrip("./")
        rest = "" if name is None else f":{name}"
        raise ApplicationError(f"{spec!r} is a path; give the module as Python imports it: {dotted}{rest}")
    words = [*module.split("."), *(name.split(".") if name is not None else ())]
    if not all(word.isidentifier() for word in words):
        raise ApplicationError(f"{spec!r} is not a module; give MODULE or MODULE:NAME, such as app:Greeter")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SdkError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ApplicationError(_not_found(name)) from None
        _show_traceback(error)
        needs_ray = (error.name or "").split(".")[0] == "ray"
        hint = "; install Ray with: pip install 'ray-grpc-sdk[serve]'" if needs_ray else ""
        raise ModuleFailedError(_failed(name, error) + hint) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it is the module's, whatever it is: SystemExit, for example
        _show_traceback(error)
        raise ModuleFailedError(_failed(name, error)) from error


def _show_traceback(error: BaseException) -> None:
    """Print the traceback of an import on stderr if the user wants it, from the first line of the module on."""
    if os.environ.get(_TRACEBACK, "") in ("", "0"):
        return
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((__file__, "<frozen ", _IMPORTLIB)):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _look_up(module: ModuleType, path: str) -> object:
    found: object = module
    holder = f"Module {module.__name__!r}"
    for name in path.split("."):
        try:
            value = getattr(found, name, _MISSING)
        except Exception as error:  # of a module's `__getattr__`, or a property
            _show_traceback(error)
            raise ModuleFailedError(f"{holder} fails to give {name!r}: {_described(error)}") from error
        if value is _MISSING:
            public = [known for known in dir(found) if not known.startswith("_")]
            near = difflib.get_close_matches(name, public, n=1)
            raise ApplicationError(f"{holder} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        found, holder = value, f"{name!r} of module {module.__name__!r}"
    return found


def _not_found(name: str) -> str:
    here = Path.cwd()
    package, dot, _ = name.rpartition(".")
    folder = here.joinpath(*package.split(".")) if package else here
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    near = difflib.get_close_matches(name, [f"{package}{dot}{module}" for module in sorted(modules)], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"No module named {name!r} in {here} or in the installed packages{hint}"


def _failed(name: str, error: BaseException) -> str:
    return f"Module {name!r} can't be imported: {_described(error)}"


def _described(error: BaseException) -> str:
    """Return the class of an exception, its text, and where the user's code raised it."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        where, what = locations.format_location(error.filename, error.lineno), f"{kind}: {error.msg}"
    else:
        where, what = _origin(error), duplicate_name(error) or f"{kind}: {_text(error)}".removesuffix(": ")
    return one_line(what) + (f" ({where})" if where else "")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:
        return f"its __str__ raised {type(other).__name__}"


def _origin(error: BaseException) -> str:
    """Return the last line of the user's code in the traceback of an exception; ``""`` if it has none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    installed = {sysconfig.get_path("stdlib"), *site.getsitepackages(), os.path.dirname(os.path.dirname(__file__))}
    own = [frame for frame in frames if not frame.filename.startswith(tuple(f"{path}{os.sep}" for path in installed))]
    # Lines of the SDK and of libraries would not help the user.
    return locations.format_location(own[-1].filename, own[-1].lineno) if own else ""
