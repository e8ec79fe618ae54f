"""Every rule by which a name of a proto becomes a name in Python.

One rule serves every clash: **underscores are appended until the name is free**. What is not free:

* a Python keyword (``rpc import`` becomes ``import_``);
* a name that the generated bases or clients have themselves, or that Ray Serve calls on a deployment (``RESERVED``);
* a name that begins with an underscore: it is private to our bases (``_channel``), or Python gives it a meaning
  (``__init__``, and ours, ``__grpc_shim__``), or Python rewrites it inside a class (``__x``). Three underscores at the
  end make it none of these. The guide's ``__call__`` is the exception;
* a name that was given before in the same scope.

RPCs choose first, so that only what Python forces upon them changes their names; then the names derived from services;
then what the generated module imports.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection

from codegen.errors import CodegenError

RESERVED = frozenset(
    {
        # ServicerBase
        "bind",
        "options",
        # AsyncClient and SyncClient
        "channel",
        "close",
        # Ray Serve calls a deployment's methods of these names, with arguments of its own
        "check_health",
        "reconfigure",
        "record_autoscaling_stats",
        "record_routing_stats",
        # An annotation in the body of every generated base needs the builtin
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


def _is_private(name: str) -> bool:
    return name.startswith("_") and name != "__call__" and not name.endswith("___")


def constant(service: str) -> str:
    """Return the name of the constant that holds a service.

    Example:
        >>> constant("Greeter"), constant("UserDefinedService"), constant("HTTPEcho"), constant("V2API")
        ('GREETER', 'USER_DEFINED_SERVICE', 'HTTP_ECHO', 'V2_API')
    """
    return _WORD_STARTS.sub("_", service).upper()


def module(proto: str, suffix: str) -> str:
    """Return the dotted name of a module generated from a proto file, by protoc's own rule.

    Args:
        proto: Path of the proto file as protoc knows it.
        suffix: ``"pb2"`` or ``"sdk"``.

    Raises:
        CodegenError: Python can't import a module of that name.

    Example:
        >>> module("acme/my-shop.proto", "pb2")
        'acme.my_shop_pb2'
    """
    stem = proto.removesuffix(".protodevel").removesuffix(".proto")
    dotted = stem.replace("-", "_").replace("/", ".") + "_" + suffix
    for part in dotted.split("."):
        if not part.isidentifier() or keyword.iskeyword(part):
            raise CodegenError(f"{proto}: Python can't import a module called {part!r}; rename the file or folder")
    return dotted


def output_path(proto: str) -> str:
    """Return the path of the generated ``_sdk`` module, below the output folder.

    Example:
        >>> output_path("acme/my-shop.proto")
        'acme/my_shop_sdk.py'
    """
    return module(proto, "sdk").replace(".", "/") + ".py"


def message(proto: str, path: str) -> str:
    """Return the expression, after its module, by which Python spells a message class.

    Args:
        proto: Path of the proto file that defines the message.
        path: The message's name without its package, ``"Outer.Inner"``.

    Raises:
        CodegenError: Python can't spell it.
    """
    for part in path.split("."):
        if keyword.iskeyword(part) or (part.startswith("__") and not part.endswith("__")):
            raise CodegenError(f"{proto}: Python can't spell the message name {part!r} in a class; rename the message")
    return path
