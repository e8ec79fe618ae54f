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

_MOST_DIMENSIONS = 64  # of an array
_LARGEST_SHAPE = 2**63 - 1  # in bytes


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
        if not self.name or not isinstance(self.name, str):
            raise OptionsError(f"the name of a Tensor is text, not {self.name!r}")
        if not isinstance(self.datatype, str) or self.datatype not in DATATYPES:
            raise OptionsError(f"Tensor {self.name!r}: unknown datatype {self.datatype!r}; use {', '.join(DATATYPES)}")
        if not isinstance(self.shape, (tuple, list)):
            raise OptionsError(f"Tensor {self.name!r}: a shape is a tuple of sizes such as (-1, 3), not {self.shape!r}")
        shape = tuple(self.shape)
        if any(not isinstance(size, int) or size < -1 for size in shape):
            raise OptionsError(f"Tensor {self.name!r}: a dimension is a size, or -1 for any, not {list(shape)}")
        if len(shape) > _MOST_DIMENSIONS:
            raise OptionsError(f"Tensor {self.name!r}: {len(shape)} dimensions; NumPy has {_MOST_DIMENSIONS} at most")
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
        raise _other_number_of_raw(request)
    arrays: Arrays = {}
    for i, given in enumerate(request.inputs):
        tensor = declared.get(given.name)
        if tensor is None:
            raise _invalid(f"no input {given.name!r}; the model takes {_names(declared)}")
        if given.name in arrays:
            raise _invalid(f"input {given.name!r} is given twice")
        if _SHARED_MEMORY in given.parameters:
            raise _shared_memory(given.name)
        where = f"input {given.name!r}"
        if given.datatype != tensor.datatype:
            raise _invalid(f"{where} is {given.datatype or 'of no datatype'}; the model takes {tensor.datatype}")
        shape = tuple(given.shape)
        if not _fits(shape, tensor.shape):
            raise _invalid(f"{where} has the shape {list(shape)}; the model takes {list(tensor.shape)}")
        datatype = DATATYPES[tensor.datatype]
        try:
            if raw:
                if given.HasField("contents"):
                    raise ValueError("it is in contents and in raw_input_contents; send it in one of them")
                elements = from_raw(datatype, raw[i])
            else:
                elements = elements_of(datatype, given.contents)
            arrays[given.name] = shaped(elements, shape)
        except ValueError as error:
            raise _invalid(f"{where}: {error}") from None
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
    found: dict[str, Tensor] = {}
    for wanted in request.outputs:
        if wanted.name not in declared:
            raise _invalid(f"no output {wanted.name!r}; the model returns {_names(declared)}")
        if wanted.name in found:
            raise _invalid(f"output {wanted.name!r} is asked for twice")
        if _SHARED_MEMORY in wanted.parameters or "classification" in wanted.parameters:
            what = "shared memory" if _SHARED_MEMORY in wanted.parameters else "classification"
            raise RpcError(grpc.StatusCode.UNIMPLEMENTED, f"output {wanted.name!r}: {what} is not supported")
        found[wanted.name] = declared[wanted.name]
    return list(found.values())


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
        ValueError: The datatype has no typed form, elements are in the field of another one, or out of range.
    """
    if not datatype.contents:
        raise ValueError(f"{datatype.name} is sent in raw_input_contents only")
    others = [field.name for field, _ in contents.ListFields() if field.name != datatype.contents]
    if others:
        raise ValueError(f"{datatype.name} is sent in {datatype.contents}, not in {', '.join(others)}")
    elements = getattr(contents, datatype.contents)
    if datatype.name == "BYTES":
        return objects(list(elements))
    if datatype.dtype.kind in "iu" and datatype.dtype.itemsize < 4:
        limits = np.iinfo(datatype.dtype)
        if elements and not limits.min <= min(elements) <= max(elements) <= limits.max:
            raise ValueError(f"an element is not from {limits.min} to {limits.max}")
    return np.array(elements, datatype.dtype)


def shaped(elements: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return elements in the shape that their sender gave them.

    Raises:
        ValueError: The shape has another number of elements, or more than an array can have.
    """
    size = math.prod(shape)
    if size != elements.size or min(shape, default=0) < 0:
        raise ValueError(f"it has {elements.size} elements; its shape {list(shape)} has {size}")
    # NumPy counts the bytes of an empty array without its dimensions of size 0.
    if not size and math.prod(filter(None, shape)) * elements.dtype.itemsize > _LARGEST_SHAPE:
        raise ValueError(f"its shape {list(shape)} is too large for an array")
    return elements.reshape(shape)


def _other_number_of_raw(request: ModelInferRequest) -> RpcError:
    for given in request.inputs:
        if _SHARED_MEMORY in given.parameters:
            return _shared_memory(given.name)
    raw, names = len(request.raw_input_contents), [given.name for given in request.inputs]
    typed = [given.name for given in request.inputs if given.HasField("contents")]
    return _invalid(
        f"{len(names)} inputs ({_names(names)}), but {raw} elements in raw_input_contents"
        f"{f' and {_names(typed)} in contents' if typed else ''}; send all inputs in the one, in their order, or all "
        "in the other"
    )


def _shared_memory(name: str) -> RpcError:
    return RpcError(grpc.StatusCode.UNIMPLEMENTED, f"input {name!r}: shared memory is not supported")


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(
        size >= 0 and wanted in (size, -1) for size, wanted in zip(shape, declared, strict=True)
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _invalid(details: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, details)
