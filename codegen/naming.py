"""Rules that turn names of a proto into Python names.

One rule resolves every conflict: **append underscores until the name is free**. These names are not free:

* a Python keyword (``rpc import`` becomes ``import_``);
* a member of the generated bases or clients, or a method that Ray Serve calls on a deployment (``RESERVED``);
* a name that begins with an underscore: it is private to our bases (``_channel``), or special in Python or for us
  (``__init__``, ``__grpc_shim__``), or mangled by Python inside a class (``__x``,
  https://docs.python.org/3/reference/expressions.html#private-name-mangling). With three underscores at the end it is
  none of these. The exception is ``__call__``, which Ray Serve's guide uses;
* a name that is used already in the same scope.

RPCs are named first, so that only Python itself changes their names; then names derived from services; then names that
the generated module imports. Names derived from a service drop its leading underscores, because of name mangling.

A message that Python can't spell (``common_pb2.None``, or ``__Hidden`` in a class) gets a name in the generated module:
its parts joined by underscores, made free (``None_``, ``Outer_class``, ``Hidden``). The names of modules are in
:mod:`codegen.relocate`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence

RESERVED = frozenset(
    {
        # ServicerBase
        "bind",
        "options",
        # AsyncClient and SyncClient
        "channel",
        "close",
        "wait_for_ready",
        # ServiceHandle
        "of_application",
        # Ray Serve calls methods of these names on a deployment, with its own arguments
        "check_health",
        "reconfigure",
        "record_autoscaling_stats",
        "record_routing_stats",
        # Generated classes, also those of gRPC, use these builtins in their bodies
        "property",
        "staticmethod",
        "type",
    }
)

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def free(name: str, taken: Collection[str]) -> str:
    """Return ``name``, with underscores appended until it is not a keyword and not in ``taken``."""
    while name in taken or keyword.iskeyword(name):
        name += "_"
    return name


def rpc(name: str, taken: Collection[str] = ()) -> str:
    """Return the name of the Python method of an RPC.

    Args:
        name: The RPC's name in the proto.
        taken: Python names of the RPCs before it in its service.

    Example:
        >>> rpc("SayHello"), rpc("import"), rpc("bind"), rpc("__call__"), rpc("__init__")
        ('SayHello', 'import_', 'bind_', '__call__', '__init___')
    """
    while name in taken or keyword.iskeyword(name) or name in RESERVED or _is_private(name):
        name += "_"
    return name


def rpcs(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the Python methods of the RPCs of one service.

    Args:
        names: Their names in the proto.

    Example:
        >>> rpcs(["import", "bind", "bind_"])
        ('import_', 'bind__', 'bind_')
    """
    # Unchanged names come first: `rpc bind` must not take `bind_` from an RPC of that name.
    taken = {name for name in names if rpc(name) == name}
    chosen = []
    for name in names:
        python_name = name if name in taken else rpc(name, taken)
        taken.add(python_name)
        chosen.append(python_name)
    return tuple(chosen)


def _is_private(name: str) -> bool:
    return name.startswith("_") and name != "__call__" and not name.endswith("___")


def stem(service: str) -> str:
    """Return the prefix of the names that are derived from a service.

    Example:
        >>> stem("Greeter"), stem("__Greeter"), stem("_1")
        ('Greeter', 'Greeter', 'Service1')
    """
    word = service.lstrip("_")
    return word if word[:1].isalpha() else "Service" + word


def constant(service: str) -> str:
    """Return the name of the constant that holds a service.

    Args:
        service: The service's name as returned by :func:`stem`.

    Example:
        >>> constant("Greeter"), constant("UserDefinedService"), constant("HTTPEcho"), constant("V2API")
        ('GREETER', 'USER_DEFINED_SERVICE', 'HTTP_ECHO', 'V2_API')
    """
    return _WORD_STARTS.sub("_", service).upper()


def module(proto: str) -> str:
    """Return the dotted name of the modules generated from a proto file, without suffix, by protoc's rule.

    Args:
        proto: Path of the proto file as protoc knows it.

    Example:
        >>> module("acme/my-shop.proto")
        'acme.my_shop'
    """
    return proto.removesuffix(".protodevel").removesuffix(".proto").replace("-", "_").replace("/", ".")


def output_path(proto: str) -> str:
    """Return the path of the ``_sdk`` module of a proto file below the output folder, by the same rule.

    Example:
        >>> output_path("acme/my-shop.proto")
        'acme/my_shop_sdk.py'
    """
    return module(proto).replace(".", "/") + "_sdk.py"


def is_spelled(path: str) -> bool:
    """Return whether Python can spell a message class as an attribute of its module, even inside a class.

    Args:
        path: The message's name without its package, ``"Outer.Inner"``.

    Example:
        >>> is_spelled("Outer.Inner"), is_spelled("Outer.None"), is_spelled("__Hidden")
        (True, False, False)
    """
    return not any(keyword.iskeyword(part) or _is_mangled(part) for part in path.split("."))


def _is_mangled(part: str) -> bool:
    return part.startswith("__") and not part.endswith("__")


def message(module: str, path: str, *, mangled: bool = False) -> str:
    """Return the expression of a message class.

    Args:
        module: Name of the message's module in the importing module.
        path: The message's name without its package.
        mangled: Whether the expression is used inside a class, where Python mangles ``__x``.

    Example:
        >>> message("shop_pb2", "Outer.Inner"), message("shop_pb2", "Outer.None")
        ('shop_pb2.Outer.Inner', 'getattr(shop_pb2.Outer, "None")')
    """
    expression = module
    for part in path.split("."):
        plain = not keyword.iskeyword(part) and not (mangled and _is_mangled(part))
        expression = f"{expression}.{part}" if plain else f'getattr({expression}, "{part}")'
    return expression


def message_stub(module: str, path: str) -> str:
    """Return the expression of a message class in the type stubs of mypy-protobuf.

    Example:
        >>> message_stub("shop_pb2", "Outer.None")
        'shop_pb2.Outer._r_None'
    """
    return ".".join([module, *(f"_r_{part}" if keyword.iskeyword(part) else part for part in path.split("."))])


def message_alias(path: str) -> str:
    """Return the name that a generated module gives to a message.

    Example:
        >>> message_alias("Outer.class"), message_alias("__Hidden")
        ('Outer_class', 'Hidden')
    """
    return path.replace(".", "_").lstrip("_") or "Message"
