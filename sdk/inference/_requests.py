"""Requests and responses of clients: arrays into the one, and out of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk.errors import OptionsError
from sdk.inference._datatypes import DATATYPES, Datatype, from_raw, to_raw
from sdk.inference._protocol import open_inference_pb2 as pb
from sdk.inference._tensors import Arrays, elements_of, shaped

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BY_DTYPE = {datatype.dtype.newbyteorder("="): datatype for datatype in DATATYPES.values() if datatype.name != "BYTES"}


def infer_request(
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    *,
    version: str = "",
    request_id: str = "",
    outputs: Iterable[str] = (),
) -> pb.ModelInferRequest:
    """Return a request for one inference, for ``ModelInfer`` and ``ModelStreamInfer``.

    Args:
        model: Name of the model.
        inputs: Its inputs by their names. Arrays of text or of objects are BYTES.
        version: Version of the model; the newest by default.
        request_id: Comes back in the response, as ``id``.
        outputs: Names of the outputs to return; all by default.

    Raises:
        OptionsError: An input is not an array, or the protocol has no datatype for it or for one of its elements.

    Example:
        >>> import numpy as np
        >>> request = infer_request("doubler", {"x": np.array([1, 2], "f4")})
        >>> request.inputs[0].datatype, list(request.inputs[0].shape)
        ('FP32', [2])
    """
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, array in inputs.items():
        datatype = _datatype_of(name, array)
        request.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
        try:
            request.raw_input_contents.append(to_raw(datatype, array))
        except TypeError as error:
            raise OptionsError(f"input {name!r}: {error}") from None
    for name in outputs:
        request.outputs.add(name=name)
    return request


def response_arrays(response: pb.ModelInferResponse) -> Arrays:
    """Return the outputs of a response by their names. Numbers share memory with the response, and are read-only.

    Raises:
        ValueError: A server sent an output that does not fit its datatype and shape.
    """
    arrays: Arrays = {}
    raw = response.raw_output_contents
    for i, output in enumerate(response.outputs):
        datatype = DATATYPES.get(output.datatype)
        if datatype is None:
            raise ValueError(f"output {output.name!r} has the unknown datatype {output.datatype!r}")
        try:
            elements = from_raw(datatype, raw[i]) if i < len(raw) else elements_of(datatype, output.contents)
            arrays[output.name] = shaped(elements, tuple(output.shape))
        except ValueError as error:
            raise ValueError(f"output {output.name!r}: {error}") from None
    return arrays


def _datatype_of(name: str, array: NDArray[Any]) -> Datatype:
    if not isinstance(array, (np.ndarray, np.generic)):
        raise OptionsError(f"input {name!r} is {type(array).__name__}, not an array: make one with `np.array`")
    if array.dtype.kind in "OSU":
        return DATATYPES["BYTES"]
    datatype = _BY_DTYPE.get(array.dtype)
    if datatype is None:
        raise OptionsError(
            f"input {name!r} is an array of {array.dtype}, for which the protocol has no datatype: convert it with "
            "`.astype()` to one of " + ", ".join(str(dtype) for dtype in _BY_DTYPE)
        )
    return datatype
