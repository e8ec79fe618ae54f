"""Arrays in and out of the protocol's messages."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.errors import OptionsError, RpcError
from sdk.inference import Tensor, infer_request, response_arrays
from sdk.inference._datatypes import DATATYPES
from sdk.inference._protocol import open_inference_pb2 as pb
from sdk.inference._tensors import read_inputs, requested_outputs, write_outputs

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False, True]]),
    "INT8": np.array([[-128, 0, 127]], "i1"),
    "INT16": np.array([[-(2**15), 0, 2**15 - 1]], "i2"),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], "i4"),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1]], "i8"),
    "UINT8": np.array([[0, 1, 255]], "u1"),
    "UINT16": np.array([[0, 1, 2**16 - 1]], "u2"),
    "UINT32": np.array([[0, 1, 2**32 - 1]], "u4"),
    "UINT64": np.array([[0, 1, 2**64 - 1]], "u8"),
    "FP16": np.array([[-1.5, 0, np.inf]], "f2"),
    "BF16": np.array([[-1.5, 0, 3e38]], ml_dtypes.bfloat16),
    "FP32": np.array([[-1.5, 0, 1e38]], "f4"),
    "FP64": np.array([[-1.5, 0, 1e308]], "f8"),
    "BYTES": np.array([[b"", b"\0\xff", b"text"]], object),
}


def signature(*inputs: Tensor, outputs: tuple[Tensor, ...] = ()) -> Any:
    return SimpleNamespace(inputs=inputs, outputs=outputs)


def request_of(arrays: dict[str, Any], tensors: tuple[Tensor, ...], *, raw: bool) -> pb.ModelInferRequest:
    """Return a request with arrays, which is a response read as a request: the fields have the same numbers."""
    response = pb.ModelInferResponse()
    write_outputs(response, arrays, tensors, raw=raw)
    request = pb.ModelInferRequest(raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add().MergeFromString(output.SerializeToString())
    return request


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_arrives_as_it_was(datatype: str, raw: bool) -> None:
    tensor = Tensor("x", datatype, (-1, 3))
    request = request_of({"x": VALUES[datatype]}, (tensor,), raw=raw)
    assert bool(request.raw_input_contents) is (raw or datatype in ("FP16", "BF16"))
    (array,) = read_inputs(pb.ModelInferRequest.FromString(request.SerializeToString()), signature(tensor)).values()
    assert array.dtype == DATATYPES[datatype].dtype
    assert array.shape == (1, 3)
    assert array.tolist() == VALUES[datatype].tolist()


def test_every_datatype_of_the_protocol_is_known() -> None:
    assert sorted(VALUES) == sorted(DATATYPES)


def test_raw_numbers_share_memory_with_the_message() -> None:
    tensor = Tensor("x", "FP32", (-1,))
    request = request_of({"x": np.zeros(1000, "f4")}, (tensor,), raw=True)
    array = read_inputs(request, signature(tensor))["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


@given(st.lists(st.binary(max_size=20)))
def test_bytes_of_any_length(elements: list[bytes]) -> None:
    tensor = Tensor("x", "BYTES", (-1,))
    array = np.empty(len(elements), object)
    array[:] = elements
    request = request_of({"x": array}, (tensor,), raw=True)
    if elements:
        assert request.raw_input_contents[0] == b"".join(struct.pack("<I", len(e)) + e for e in elements)
    assert list(read_inputs(request, signature(tensor))["x"]) == elements


def test_an_optional_input_may_be_missing() -> None:
    tensors = (Tensor("x", "BOOL", (1,)), Tensor("y", "BOOL", (1,), optional=True))
    request = request_of({"x": np.array([True])}, tensors[:1], raw=False)
    assert read_inputs(request, signature(*tensors)).keys() == {"x"}


def given_input(**fields: Any) -> pb.ModelInferRequest:
    values = {"name": "x", "datatype": "INT8", "shape": [2], **fields}
    return pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(**values)])


def contents(**fields: Any) -> pb.InferTensorContents:
    return pb.InferTensorContents(**fields)


def raw(request: pb.ModelInferRequest, *elements: bytes) -> pb.ModelInferRequest:
    request.raw_input_contents.extend(elements)
    return request


def twice(request: pb.ModelInferRequest) -> pb.ModelInferRequest:
    request.inputs.append(request.inputs[0])
    return request


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (pb.ModelInferRequest(), "missing: input 'x'"),
        (given_input(name="z"), "no input 'z'; the model takes 'x'"),
        (twice(given_input(contents=contents(int_contents=[1, 2]))), "input 'x' is given twice"),
        (given_input(datatype="INT16"), "input 'x' is INT16; the model takes INT8"),
        (given_input(shape=[1, 2]), "input 'x' has the shape [1, 2]; the model takes [2]"),
        (given_input(shape=[3]), "input 'x' has the shape [3]; the model takes [2]"),
        (given_input(contents=contents(int_contents=[1])), "input 'x': it has 1 elements; its shape [2] has 2"),
        (given_input(contents=contents(int_contents=[1, 128])), "input 'x': an element is not from -128 to 127"),
        (given_input(), "input 'x': it has 0 elements; its shape [2] has 2"),
        (given_input(datatype=""), "input 'x' is of no datatype; the model takes INT8"),
        (
            given_input(contents=contents(fp32_contents=[1, 2])),
            "input 'x': INT8 is sent in int_contents, not in fp32_contents",
        ),
        (
            given_input(contents=contents(int_contents=[1, 2], uint_contents=[1, 2])),
            "input 'x': INT8 is sent in int_contents, not in uint_contents",
        ),
        (
            raw(given_input(), b"1", b"2"),
            "1 inputs ('x'), but 2 elements in raw_input_contents; send all inputs in the one, in their order, or all "
            "in the other",
        ),
        (
            raw(twice(given_input(contents=contents(int_contents=[1, 2]))), b"12"),
            "2 inputs ('x', 'x'), but 1 elements in raw_input_contents and 'x', 'x' in contents; send all inputs in "
            "the one, in their order, or all in the other",
        ),
        (raw(given_input(), b"123"), "input 'x': it has 3 elements; its shape [2] has 2"),
        (
            raw(given_input(contents=contents(int_contents=[1, 2])), b"12"),
            "input 'x': it is in contents and in raw_input_contents; send it in one of them",
        ),
    ],
)
def test_a_request_that_does_not_fit(request_: pb.ModelInferRequest, details: str) -> None:
    with pytest.raises(RpcError) as raised:
        read_inputs(request_, signature(Tensor("x", "INT8", (2,))))
    assert (raised.value.code, raised.value.details) == (grpc.StatusCode.INVALID_ARGUMENT, details)


@pytest.mark.parametrize(
    ("datatype", "raw_bytes", "details"),
    [
        ("INT32", b"123", "input 'x': 3 bytes are not a whole number of INT32 elements of 4 bytes"),
        ("BYTES", b"\2\0\0\0a", "input 'x': element 0 of 2 bytes is cut off after 1"),
        ("BYTES", b"\1\0\0\0a\1\0", "input 'x': the length of element 1 is cut off"),
        ("BYTES", b"\xff\xff\xff\xff", "input 'x': element 0 of 4294967295 bytes is cut off after 0"),
    ],
)
def test_raw_bytes_that_do_not_fit(datatype: str, raw_bytes: bytes, details: str) -> None:
    with pytest.raises(RpcError) as raised:
        read_inputs(raw(given_input(datatype=datatype), raw_bytes), signature(Tensor("x", datatype, (2,))))
    assert (raised.value.code, raised.value.details) == (grpc.StatusCode.INVALID_ARGUMENT, details)


def too_large(datatype: str) -> Any:
    return {"name": "x", "datatype": datatype, "shape": [0, 2**62, 2**62]}


@pytest.mark.parametrize("datatype", ["BOOL", "FP32", "BYTES"])
def test_an_empty_tensor_with_a_shape_that_no_array_can_have(datatype: str) -> None:
    details = r"'x': its shape \[0, 4611686018427387904, 4611686018427387904\] is too large for an array"
    with pytest.raises(RpcError, match=f"INVALID_ARGUMENT: input {details}"):
        read_inputs(given_input(**too_large(datatype)), signature(Tensor("x", datatype, (-1, -1, -1))))
    with pytest.raises(ValueError, match=f"output {details}"):
        response_arrays(pb.ModelInferResponse(outputs=[too_large(datatype)]))


@pytest.mark.parametrize("shape", [(0, 5), (0, 2**60), (3, 0, 2**59)])
def test_an_empty_tensor(shape: tuple[int, ...]) -> None:
    tensor = Tensor("x", "FP32", (-1,) * len(shape))
    for request in (given_input(datatype="FP32", shape=shape), raw(given_input(datatype="FP32", shape=shape), b"")):
        assert read_inputs(request, signature(tensor))["x"].shape == shape


def test_shared_memory_beside_a_raw_input() -> None:
    request = raw(twice(given_input(parameters={"shared_memory_region": pb.InferParameter(string_param="m")})), b"12")
    with pytest.raises(RpcError, match="UNIMPLEMENTED: input 'x': shared memory is not supported"):
        read_inputs(request, signature(Tensor("x", "INT8", (2,))))


def test_a_datatype_without_contents() -> None:
    with pytest.raises(RpcError, match="input 'x': FP16 is sent in raw_input_contents only"):
        read_inputs(given_input(datatype="FP16", contents=contents()), signature(Tensor("x", "FP16", (2,))))


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (None, "infer returned NoneType, not a dict of arrays"),
        ({}, "infer returned no output 'y', but an empty dict"),
        ({"z": 1}, "infer returned no output 'y', but 'z'"),
        ({"y": np.zeros(2)}, "infer returned output 'y' as float64; it is declared FP32"),
        (
            {"y": np.zeros((1, 2), "f4")},
            r"infer returned output 'y' with the shape \[1, 2\]; it is declared \[-1\]",
        ),
    ],
)
def test_an_output_that_does_not_fit(returned: object, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        write_outputs(pb.ModelInferResponse(), returned, [Tensor("y", "FP32", (-1,))], raw=True)


def test_text_is_encoded_and_other_objects_are_refused() -> None:
    tensor = Tensor("y", "BYTES", (-1,))
    for value in (["ä", b"b"], np.array(["ä", "b"])):
        response = pb.ModelInferResponse()
        write_outputs(response, {"y": np.array(value, object)}, [tensor], raw=False)
        assert list(response.outputs[0].contents.bytes_contents) == ["ä".encode(), b"b"]
    with pytest.raises(TypeError, match="an element of BYTES is bytes or str, not int"):
        write_outputs(pb.ModelInferResponse(), {"y": np.array([1], object)}, [tensor], raw=True)


def test_one_output_without_contents_makes_all_raw() -> None:
    tensors = [Tensor("a", "FP32", (1,)), Tensor("b", "FP16", (1,))]
    response = pb.ModelInferResponse()
    write_outputs(response, {"a": np.ones(1, "f4"), "b": np.ones(1, "f2")}, tensors, raw=False)
    assert len(response.raw_output_contents) == 2
    assert not any(output.HasField("contents") for output in response.outputs)


def test_the_outputs_that_a_request_names() -> None:
    model = signature(outputs=(Tensor("a", "BOOL", (1,)), Tensor("b", "BOOL", (1,))))

    def request(*names: str, **parameters: pb.InferParameter) -> pb.ModelInferRequest:
        wanted = pb.ModelInferRequest.InferRequestedOutputTensor
        return pb.ModelInferRequest(outputs=[wanted(name=name, parameters=parameters) for name in names])

    assert [tensor.name for tensor in requested_outputs(request(), model)] == ["a", "b"]
    assert [tensor.name for tensor in requested_outputs(request("b"), model)] == ["b"]
    with pytest.raises(RpcError, match="INVALID_ARGUMENT: output 'b' is asked for twice"):
        requested_outputs(request("b", "a", "b"), model)
    with pytest.raises(RpcError, match="INVALID_ARGUMENT: no output 'c'; the model returns 'a', 'b'"):
        requested_outputs(request("c"), model)
    with pytest.raises(RpcError, match="UNIMPLEMENTED: output 'a': classification is not supported"):
        requested_outputs(request("a", classification=pb.InferParameter(int64_param=1)), model)
    with pytest.raises(RpcError, match="UNIMPLEMENTED: output 'a': shared memory is not supported"):
        requested_outputs(request("a", shared_memory_region=pb.InferParameter(string_param="m")), model)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", "FP32", (1,)), "the name of a Tensor is text, not ''"),
        ((None, "FP32", (1,)), "the name of a Tensor is text, not None"),
        (("x", ["FP32"], (1,)), r"Tensor 'x': unknown datatype \['FP32'\]; use BOOL"),
        (("x", "FP32", 3), r"Tensor 'x': a shape is a tuple of sizes such as \(-1, 3\), not 3"),
        (("x", "FP32", (1,) * 65), "Tensor 'x': 65 dimensions; NumPy has 64 at most"),
        (("x", "float", (1,)), "Tensor 'x': unknown datatype 'float'; use BOOL, INT8"),
        (("x", "FP32", (-2,)), r"Tensor 'x': a dimension is a size, or -1 for any, not \[-2\]"),
    ],
)
def test_a_wrong_tensor(arguments: Any, error: str) -> None:
    with pytest.raises(OptionsError, match=error):
        Tensor(*arguments)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("raw", [True, False])
def test_arrays_of_clients(name: str, raw: bool) -> None:
    tensor = Tensor("x", name, (-1, -1))
    request = infer_request("m", {"x": VALUES[name]}, version="2", request_id="r", outputs=["y"])
    assert (request.model_name, request.model_version, request.id, request.outputs[0].name) == ("m", "2", "r", "y")
    np.testing.assert_array_equal(read_inputs(request, signature(tensor))["x"], VALUES[name])

    response = pb.ModelInferResponse()
    write_outputs(response, {"x": VALUES[name]}, [tensor], raw=raw)
    array = response_arrays(response)["x"]
    assert array.dtype == VALUES[name].dtype
    np.testing.assert_array_equal(array, VALUES[name])


def test_text_is_bytes_in_requests() -> None:
    request = infer_request("m", {"x": np.array(["a", "é"])})
    assert read_inputs(request, signature(Tensor("x", "BYTES", (2,))))["x"].tolist() == [b"a", "é".encode()]


def test_an_array_without_a_datatype_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"input 'x' is an array of complex128, .* convert it .* float32"):
        infer_request("m", {"x": np.array([1j])})
    not_an_array: Any = [1.0]
    with pytest.raises(OptionsError, match=r"input 'x' is list, not an array: make one with `np.array`"):
        infer_request("m", {"x": not_an_array})
    with pytest.raises(OptionsError, match="input 'x': an element of BYTES is bytes or str, not NoneType"):
        infer_request("m", {"x": np.array([None])})


def test_a_response_that_contradicts_itself() -> None:
    response = pb.ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=[3])
    with pytest.raises(ValueError, match=r"output 'y': it has 0 elements; its shape \[3\] has 3"):
        response_arrays(response)
    response.outputs[0].datatype = "FP9"
    with pytest.raises(ValueError, match="unknown datatype 'FP9'"):
        response_arrays(response)
