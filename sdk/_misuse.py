"""Messages for calls of clients and handles that are written wrongly: no request, fields as keywords, misspelt RPCs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sdk.service import Method

F = TypeVar("F", bound=Callable[..., Any])

# Names of fields in a message; the rest is an ellipsis.
_SHOWN_FIELDS = 3


class _Missing:
    def __repr__(self) -> str:
        return "<required>"


MISSING: Any = _Missing()


def request_is_required(call: F) -> F:
    """Give the request of a method a default at run time, so that a call without it comes to our own message.

    Type checkers still see a parameter without a default.
    """
    call.__defaults__ = (MISSING,)
    return call


def missing_request(method: Method, wanted: str = "a") -> TypeError:
    """Return the error for a call without its request.

    Args:
        method: The RPC.
        wanted: The kind of argument: ``"a"``, ``"an iterable of"``.
    """
    example = example_request(method)
    example = example if wanted == "a" else f"[{example}, …]"
    return TypeError(
        f"{method.python_name} takes {wanted} {method.request.DESCRIPTOR.full_name}: {method.python_name}({example})"
    )


def unexpected_keyword(method: Method, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for a keyword argument that no call has, which may be a field of the request."""
    text = f"{method.python_name} got an unexpected keyword argument {name!r}"
    if name in method.request.DESCRIPTOR.fields_by_name:
        return TypeError(f"{text}, which is a field of the request: {method.python_name}({example_request(method)})")
    return TypeError(f"{text}; it takes {', '.join(sorted(known))}")


def unknown_method(owner: object, name: str, known: Iterable[str]) -> AttributeError:
    """Return the error for an attribute that a client or handle does not have.

    Args:
        owner: The client or handle.
        name: The attribute.
        known: Names of its RPCs.
    """
    of, names = type(owner).__name__, sorted(known)
    if name.startswith("_") or not names:  # looked up by Python and its libraries
        return AttributeError(f"{of!r} object has no attribute {name!r}", name=name, obj=owner)
    folded = {each.replace("_", "").lower(): each for each in names}
    near = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"it has {', '.join(names)}"
    return AttributeError(f"{of} has no RPC {name!r}; {hint}", name=name, obj=owner)


def example_request(method: Method) -> str:
    """Return the request of an RPC as code, ``"HelloRequest(name=…)"``."""
    fields = [field.name for field in method.request.DESCRIPTOR.fields]
    shown = [f"{name}=…" for name in fields[:_SHOWN_FIELDS]] + ["…"] * (len(fields) > _SHOWN_FIELDS)
    return f"{method.request.__name__}({', '.join(shown)})"
