"""Every rule by which a name of a proto becomes a name in Python.

One rule serves every clash: **underscores are appended until the name is free**. What is not free:

* a Python keyword (``rpc import`` becomes ``import_``);
* a name that the generated bases or clients have themselves, or that Ray Serve calls on a deployment (``RESERVED``);
* a name that begins with an underscore: it is private to our bases (``_channel``), or Python gives it a meaning
  (``__init__``, and ours, ``__grpc_shim__``), or Python rewrites it inside a class (``__x``). Three underscores at the
  end make it none of these. The guide's ``__call__`` is the exception;
* a name that was given before in the same scope.

RPCs choose first, so that only what Python forces upon them changes their names; then the names derived from services;
then what the generated module imports. Names derived from a service drop its leading underscores: in a class, Python
takes a name with two of them for another.

A message that Python can't spell (``common_pb2.None``, or ``__Hidden`` in a class) has its name in the generated
module: its parts joined by underscores, made free (``None_``, ``Outer_class``, ``Hidden``). What modules are called is
in :mod:`codegen.relocate`.
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
        # Ray Serve calls a deployment's methods of these names, with arguments of its own
        "check_health",
        "reconfigure",
        "record_autoscaling_stats",
        "record_routing_stats",
        # The bodies of generated classes, gRPC's among them, need the builtin
        "property",
        "staticmethod",
        "type",
    }
)

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def free(name: str, taken: Collection[str]) -> str:
    """Return ``name`` with as many underscores appended as it takes until it is not in ``taken``."""
    while name in taken or keyword.iskeyword(name):
        name += "_"
    return name


def rpc(name: str, taken: Collection[str] = ()) -> str:
    """Return the name of the Python method that stands for an RPC.

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
    """Return the names of the Python methods that stand for the RPCs of one service.

    Args:
        names: Their names in the proto.

    Example:
        >>> rpcs(["import", "bind", "bind_"])
        ('import_', 'bind__', 'bind_')
    """
    # Names that can stay as they are come first: `rpc bind` must not take `bind_` from an RPC that is called so.
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
    """Return what the names derived from a service begin with.

    Example:
        >>> stem("Greeter"), stem("__Greeter"), stem("_1")
        ('Greeter', 'Greeter', 'Service1')
    """
    word = service.lstrip("_")
    return word if word[:1].isalpha() else "Service" + word


def constant(service: str) -> str:
    """Return the name of the constant that holds a service.

    Args:
        service: The service's name, as :func:`stem` gives it.

    Example:
        >>> constant("Greeter"), constant("UserDefinedService"), constant("HTTPEcho"), constant("V2API")
        ('GREETER', 'USER_DEFINED_SERVICE', 'HTTP_ECHO', 'V2_API')
    """
    return _WORD_STARTS.sub("_", service).upper()


def module(proto: str) -> str:
    """Return the dotted name of the modules generated from a proto file without its suffix, by protoc's own rule.

    Args:
        proto: Path of the proto file as protoc knows it.

    Example:
        >>> module("acme/my-shop.proto")
        'acme.my_shop'
    """
    return proto.removesuffix(".protodevel").removesuffix(".proto").replace("-", "_").replace("/", ".")


def output_path(proto: str) -> str:
    """Return the path of the ``_sdk`` module of a proto file, by the same rule, below the output folder.

    Example:
        >>> output_path("acme/my-shop.proto")
        'acme/my_shop_sdk.py'
    """
    return module(proto).replace(".", "/") + "_sdk.py"


def is_spelled(path: str) -> bool:
    """Return whether Python can spell a message class after its module, even within a class.

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
        module: What the message's module is called.
        path: The message's name without its package.
        mangled: Whether the expression stands in a class, where Python takes ``__x`` for another name.

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
    """Return how the type stub of mypy-protobuf spells a message class.

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
