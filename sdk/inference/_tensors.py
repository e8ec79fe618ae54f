"""Tensors of a model: what it declares, and arrays in and out of the messages of the protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray

from sdk.errors import OptionsError, RpcError
from sdk.inference._datatypes import DATATYPES, Datatype, as_bytes, from_raw, objects, to_raw

if TYPE_CHECKING:
    from sdk.inference._protocol.open_inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse

#: Arrays by the names of their tensors.
Arrays: TypeAlias = dict[str, NDArray[Any]]

# Triton's extension: the tensor is in memory that client and server share.
_SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Args:
        name: Its name.
        datatype: One of the protocol's: BOOL, INT8 to INT64, UINT8 to UINT64, FP16, BF16, FP32, FP64, BYTES. Arrays of
            BF16 have the type ``ml_dtypes.bfloat16``, those of BYTES the type ``object`` with elements of ``bytes``.
        shape: Its dimensions; -1 for one of any size.
        optional: True for an input that a request may leave out.

    Raises:
        OptionsError: The name is empty, or there is no such datatype or dimension.

    Example:
        >>> Tensor("image", "FP32", (-1, 3, 224, 224)).shape
        (-1, 3, 224, 224)
    """

    name: str
    datatype: str
    shape: Sequence[int]
    optional: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise OptionsError("a Tensor has a name")
        if self.datatype not in DATATYPES:
            raise OptionsError(f"Tensor {self.name!r}: unknown datatype {self.datatype!r}; use {', '.join(DATATYPES)}")
        shape = tuple(self.shape)
        if any(not isinstance(size, int) or size < -1 for size in shape):
            raise OptionsError(f"Tensor {self.name!r}: a dimension is a size, or -1 for any, not {list(shape)}")
        object.__setattr__(self, "shape", shape)


class Signature(Protocol):
    """The inputs and outputs of a model."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...


def read_inputs(request: ModelInferRequest, signature: Signature) -> Arrays:
    """Return the arrays of a request.

    Raises:
        RpcError: INVALID_ARGUMENT: a tensor is missing, unknown, given twice, or not as it is declared.
    """
    declared = {tensor.name: tensor for tensor in signature.inputs}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise _invalid(f"{len(request.inputs)} inputs, but {len(raw)} elements in raw_input_contents")
    arrays: Arrays = {}
    for i, given in enumerate(request.inputs):
        tensor = declared.get(given.name)
        if tensor is None:
            raise _invalid(f"no input {given.name!r}; the model takes {_names(declared)}")
        if given.name in arrays:
            raise _invalid(f"input {given.name!r} is given twice")
        if _SHARED_MEMORY in given.parameters:
            raise RpcError(grpc.StatusCode.UNIMPLEMENTED, f"input {given.name!r}: shared memory is not supported")
        where = f"input {given.name!r}"
        if given.datatype != tensor.datatype:
            raise _invalid(f"{where} is {given.datatype}; the model takes {tensor.datatype}")
        shape = tuple(given.shape)
        if not _fits(shape, tensor.shape):
            raise _invalid(f"{where} has the shape {list(shape)}; the model takes {list(tensor.shape)}")
        datatype = DATATYPES[tensor.datatype]
        try:
            if raw:
                if given.HasField("contents"):
                    raise ValueError("it is in contents and in raw_input_contents")
                elements = from_raw(datatype, raw[i])
            else:
                elements = elements_of(datatype, given.contents)
        except ValueError as error:
            raise _invalid(f"{where}: {error}") from None
        if elements.size != math.prod(shape):
            raise _invalid(f"{where} has {elements.size} elements; its shape {list(shape)} has {math.prod(shape)}")
        arrays[given.name] = elements.reshape(shape)
    missing = [name for name, tensor in declared.items() if name not in arrays and not tensor.optional]
    if missing:
        raise _invalid(f"missing: input {_names(missing)}")
    return arrays


def requested_outputs(request: ModelInferRequest, signature: Signature) -> list[Tensor]:
    """Return the outputs that a request asks for, all if it names none.

    Raises:
        RpcError: INVALID_ARGUMENT: there is no such output.
    """
    if not request.outputs:
        return list(signature.outputs)
    declared = {tensor.name: tensor for tensor in signature.outputs}
    for wanted in request.outputs:
        if wanted.name not in declared:
            raise _invalid(f"no output {wanted.name!r}; the model returns {_names(declared)}")
        if _SHARED_MEMORY in wanted.parameters or "classification" in wanted.parameters:
            what = "shared memory" if _SHARED_MEMORY in wanted.parameters else "classification"
            raise RpcError(grpc.StatusCode.UNIMPLEMENTED, f"output {wanted.name!r}: {what} is not supported")
    return [declared[wanted.name] for wanted in request.outputs]


def write_outputs(response: ModelInferResponse, arrays: object, wanted: Iterable[Tensor], *, raw: bool) -> None:
    """Write what a model returned into a response.

    Args:
        response: The response.
        arrays: What ``infer`` returned.
        wanted: The outputs to write.
        raw: True to write them as raw bytes, as all outputs are if one of them has no other form.

    Raises:
        TypeError: The model returned something other than arrays, or an element of BYTES is neither bytes nor text.
        ValueError: An output is missing, or not as it is declared.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"infer returned {type(arrays).__name__}, not a dict of arrays")
    tensors = list(wanted)
    raw = raw or any(not DATATYPES[tensor.datatype].contents for tensor in tensors)
    for tensor in tensors:
        if tensor.name not in arrays:
            raise ValueError(f"infer returned no output {tensor.name!r}, but {_names(arrays) or 'an empty dict'}")
        datatype = DATATYPES[tensor.datatype]
        array = _as_declared(tensor, datatype, arrays[tensor.name])
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_raw(datatype, array))
        elif datatype.name == "BYTES":
            output.contents.bytes_contents.extend(map(as_bytes, array.ravel()))
        else:
            getattr(output.contents, datatype.contents).extend(array.ravel().tolist())


def _as_declared(tensor: Tensor, datatype: Datatype, value: object) -> NDArray[Any]:
    array = np.asarray(value)
    is_text = datatype.name == "BYTES" and array.dtype.kind in "OSU"
    if not is_text and array.dtype != datatype.dtype.newbyteorder("="):
        raise ValueError(f"infer returned output {tensor.name!r} as {array.dtype}; it is declared {tensor.datatype}")
    if not _fits(array.shape, tensor.shape):
        raise ValueError(
            f"infer returned output {tensor.name!r} with the shape {list(array.shape)}; it is declared "
            f"{list(tensor.shape)}"
        )
    return array


def elements_of(datatype: Datatype, contents: InferTensorContents) -> NDArray[Any]:
    """Return the typed elements of a tensor, in one dimension.

    Raises:
        ValueError: The datatype has no typed form, or an element is out of its range.
    """
    if not datatype.contents:
        raise ValueError(f"{datatype.name} is sent in raw_input_contents only")
    elements = getattr(contents, datatype.contents)
    if datatype.name == "BYTES":
        return objects(list(elements))
    if datatype.dtype.kind in "iu" and datatype.dtype.itemsize < 4:
        limits = np.iinfo(datatype.dtype)
        if elements and not limits.min <= min(elements) <= max(elements) <= limits.max:
            raise ValueError(f"an element is not from {limits.min} to {limits.max}")
    return np.array(elements, datatype.dtype)


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(
        size >= 0 and wanted in (size, -1) for size, wanted in zip(shape, declared, strict=True)
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _invalid(details: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, details)
