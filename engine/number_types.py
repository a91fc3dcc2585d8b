"""Names each number type in the words of the files and libraries that it passes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """Describes a number type. A word is "" where a vocabulary lacks it, or we never need it.

    Attributes:
        name: What we call it, in options, manifests and messages: "bf16".
        bits: The bits of one value.
        numpy: The NumPy type that holds its values, or its bits where NumPy does not know it.
        torch: The name in torch.
        safetensors: The name in a safetensors header.
        onnx: The name in onnx.TensorProto.DataType.
        onnx_number: The number of that name.
        tensorrt: The member of tensorrt.DataType.
    """

    name: str
    bits: int
    numpy: str
    torch: str
    safetensors: str
    onnx: str
    onnx_number: int
    tensorrt: str = ""


def _type(
    name: str, bits: int, numpy: str, torch: str, safetensors: str, onnx: str, number: int, trt: str = ""
) -> NumberType:
    return NumberType(
        name=name,
        bits=bits,
        numpy=numpy,
        torch=torch,
        safetensors=safetensors,
        onnx=onnx,
        onnx_number=number,
        tensorrt=trt,
    )


_ALL = (
    _type("fp64", 64, "float64", "float64", "F64", "DOUBLE", 11),
    _type("fp32", 32, "float32", "float32", "F32", "FLOAT", 1, "FLOAT"),
    _type("fp16", 16, "float16", "float16", "F16", "FLOAT16", 10, "HALF"),
    _type("bf16", 16, "uint16", "bfloat16", "BF16", "BFLOAT16", 16, "BF16"),
    _type("fp8", 8, "uint8", "float8_e4m3fn", "F8_E4M3", "FLOAT8E4M3FN", 17, "FP8"),
    _type("fp8_e5m2", 8, "uint8", "float8_e5m2", "F8_E5M2", "FLOAT8E5M2", 19),
    _type("fp8_e8m0", 8, "uint8", "float8_e8m0fnu", "F8_E8M0", "FLOAT8E8M0", 24),
    _type("nvfp4", 4, "uint8", "uint8", "F4", "FLOAT4E2M1", 23, "FP4"),  # torch holds two codes in a byte
    _type("int64", 64, "int64", "int64", "I64", "INT64", 7),
    _type("int32", 32, "int32", "int32", "I32", "INT32", 6, "INT32"),
    _type("int16", 16, "int16", "int16", "I16", "INT16", 5),
    _type("int8", 8, "int8", "int8", "I8", "INT8", 3, "INT8"),
    _type("uint64", 64, "uint64", "uint64", "U64", "UINT64", 13),
    _type("uint32", 32, "uint32", "uint32", "U32", "UINT32", 12),
    _type("uint16", 16, "uint16", "uint16", "U16", "UINT16", 4),
    _type("uint8", 8, "uint8", "uint8", "U8", "UINT8", 2, "UINT8"),
    _type("bool", 8, "bool", "bool", "BOOL", "BOOL", 9),
)

NUMBER_TYPES: Mapping[str, NumberType] = {one.name: one for one in _ALL}
"""The number types by our names."""
SAFETENSORS: Mapping[str, NumberType] = {one.safetensors: one for one in _ALL}
"""The number types by their names in a safetensors header."""
ONNX: Mapping[str, NumberType] = {one.onnx: one for one in _ALL}
"""The number types by their names in onnx.TensorProto.DataType."""
