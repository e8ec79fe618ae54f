"""Datatypes of the protocol and of NumPy, and the bytes of arrays.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md#tensor-data-types
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype.

    Attributes:
        name: Its name in the protocol.
        dtype: That of NumPy, little-endian. BYTES are arrays of objects, each of them ``bytes``.
        contents: The field of InferTensorContents that has its elements; empty for those that are always raw.
    """

    name: str
    dtype: np.dtype[Any]
    contents: str = ""


DATATYPES = {
    name: Datatype(name, np.dtype(dtype), contents)
    for name, dtype, contents in (
        ("BOOL", "?", "bool_contents"),
        ("INT8", "i1", "int_contents"),
        ("INT16", "<i2", "int_contents"),
        ("INT32", "<i4", "int_contents"),
        ("INT64", "<i8", "int64_contents"),
        ("UINT8", "u1", "uint_contents"),
        ("UINT16", "<u2", "uint_contents"),
        ("UINT32", "<u4", "uint_contents"),
        ("UINT64", "<u8", "uint64_contents"),
        ("FP16", "<f2", ""),
        ("BF16", ml_dtypes.bfloat16, ""),
        ("FP32", "<f4", "fp32_contents"),
        ("FP64", "<f8", "fp64_contents"),
        ("BYTES", object, "bytes_contents"),
    )
}


def from_raw(datatype: Datatype, raw: bytes) -> NDArray[Any]:
    """Return the elements in raw bytes, in one dimension. Arrays of numbers share memory with the message, read-only.

    Raises:
        ValueError: The bytes are not a whole number of elements, or an element of BYTES is cut off.
    """
    if datatype.name != "BYTES":
        if len(raw) % datatype.dtype.itemsize:
            size = datatype.dtype.itemsize
            raise ValueError(f"{len(raw)} bytes are not a whole number of {datatype.name} elements of {size} bytes")
        return np.frombuffer(raw, datatype.dtype)
    elements: list[bytes] = []
    at, end = 0, len(raw)
    while at < end:
        if at + _LENGTH.size > end:
            raise ValueError(f"the length of element {len(elements)} is cut off")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > end:
            raise ValueError(f"element {len(elements)} of {length} bytes is cut off after {end - at}")
        elements.append(raw[at : at + length])
        at += length
    return objects(elements)


def to_raw(datatype: Datatype, array: NDArray[Any]) -> bytes:
    """Return the raw bytes of an array, in row-major order."""
    if datatype.name != "BYTES":
        return array.tobytes()
    elements = [as_bytes(element) for element in array.ravel()]
    return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])


def objects(elements: list[bytes]) -> NDArray[Any]:
    """Return an array of objects; NumPy alone would make fixed-length strings of them."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def as_bytes(element: object) -> bytes:
    """Return an element of BYTES; text is encoded in UTF-8.

    Raises:
        TypeError: It is neither bytes nor text.
    """
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, (bytes, bytearray, memoryview)):
        return bytes(element)
    raise TypeError(f"an element of BYTES is bytes or str, not {type(element).__name__}")
