"""Custom options of proto elements, such as ``google.api.http``, read with the classes of the files that define them.

See https://protobuf.dev/programming-guides/proto3/#customoptions. The classes of generated modules are not used: a file
may have another version of the option than this program.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory

#: Full name of the kind of options that an element has, by the class of its descriptor.
_KINDS = {
    "MethodDescriptor": "google.protobuf.MethodOptions",
    "FieldDescriptor": "google.protobuf.FieldOptions",
    "OneofDescriptor": "google.protobuf.OneofOptions",
    "Descriptor": "google.protobuf.MessageOptions",
}


def custom_option(element: Any, name: str) -> Any:
    """Return the value of a custom option that is a message; None if it is not set, or the files do not define it.

    Args:
        element: The descriptor of a method, field, oneof or message in a separate pool.
        name: Full name of the extension, ``"google.api.http"``.
    """
    if not element.has_options:
        return None
    owner = getattr(element, "containing_service", None) or getattr(element, "containing_type", None) or element
    pool = owner.file.pool
    try:
        extension = pool.FindExtensionByName(name)
    except KeyError:
        return None
    kind = _KINDS[type(element).__name__]
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(kind))
    options: Any = cls.FromString(element.GetOptions().SerializeToString())
    return options.Extensions[extension] if options.HasExtension(extension) else None
