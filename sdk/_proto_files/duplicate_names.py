"""Two proto files that define one name: a process can load one of them, and protobuf names neither.

See https://protobuf.dev/reference/cpp/api-docs/google.protobuf.descriptor/#DescriptorPool. The import of the second
``_pb2`` module ends with a ``TypeError``. This happens with copies of protos that Ray Serve loads: ``ray.serve`` and
``grpc.reflection.v1alpha``.
"""

from __future__ import annotations

import re
import traceback

_DUPLICATE = re.compile(r"duplicate symbol '([^']+)'")


def duplicate_name(error: BaseException) -> str:
    """Return the message for the import of a ``_pb2`` module that failed because of a name; "" for other errors.

    Args:
        error: The error of the import.
    """
    match = _DUPLICATE.search(str(error)) if isinstance(error, TypeError) else None
    module = traceback.extract_tb(error.__traceback__)[-1].filename if match is not None else ""
    if match is None or not module.endswith("_pb2.py"):
        return ""
    from google.protobuf import descriptor_pool  # the start of a command does not import it

    try:
        first = descriptor_pool.Default().FindFileContainingSymbol(match[1]).name
    except KeyError:  # a package of this name
        first = "another proto"
    return (
        f"{module} can't be loaded: it defines {match[1]}, and so does {first}, which this process has loaded before. "
        "Leave out your copy of the proto (`sdk codegen --exclude`) and import the module of the package that has it, "
        "or give your copy another `package`"
    )
