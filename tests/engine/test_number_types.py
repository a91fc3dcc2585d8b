"""One table of number types: it says what NumPy, torch, onnx and the compiler say."""

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch

from kontext_trt.engine.components import ElementType, Precision
from kontext_trt.engine.flavour import FlavourName, load_flavour
from kontext_trt.engine.number_types import NUMBER_TYPES, NumberType


@pytest.mark.parametrize("number", NUMBER_TYPES.values(), ids=lambda number: number.name)
def test_every_vocabulary_agrees(number: NumberType):
    assert onnx.TensorProto.DataType.Value(number.onnx) == number.onnx_number
    stored_bits = max(number.bits, 8)  # torch and NumPy hold two 4-bit codes in a byte
    assert np.dtype(number.numpy).itemsize * 8 == stored_bits
    assert getattr(torch, number.torch).itemsize * 8 == stored_bits
    if number.bits >= 8:
        values = onnx.helper.tensor_dtype_to_np_dtype(number.onnx_number)
        assert values.itemsize * 8 == number.bits


def test_a_value_keeps_its_bits_on_every_way():
    bits = torch.tensor([1.5], dtype=getattr(torch, NUMBER_TYPES["bf16"].torch)).view(torch.uint16).numpy()
    assert bits.dtype == NUMBER_TYPES["bf16"].numpy
    assert bits.view(ml_dtypes.bfloat16)[0] == 1.5


def test_the_compiler_has_the_members():
    trt = load_flavour(FlavourName.TENSORRT_RTX).trt
    named = {number.name: getattr(trt.DataType, number.tensorrt) for number in NUMBER_TYPES.values() if number.tensorrt}
    assert {"fp32", "fp16", "bf16", "fp8", "nvfp4", "int32", "uint8"} <= named.keys()
    assert len(set(map(str, named.values()))) == len(named)


def test_border_types_are_in_the_table():
    assert {one: one.number.name for one in ElementType if one is not ElementType.ACTIVATION} == {
        ElementType.FLOAT32: "fp32",
        ElementType.FLOAT16: "fp16",
        ElementType.BFLOAT16: "bf16",
        ElementType.INT32: "int32",
        ElementType.UINT8: "uint8",
    }
    for precision in Precision:
        assert ElementType.ACTIVATION.resolve(precision).number is precision.number
