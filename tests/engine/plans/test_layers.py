"""Layer listings in the spelling of each version. The layouts of lines are TensorRT's own, the names are not."""

from __future__ import annotations

import json

import pytest

from kontext_trt.engine.plans.census import Census, remarks, shortfalls, take_census
from kontext_trt.engine.plans.layers import Layer, LayerTensor, layers_from_inspector, layers_from_log


def in_rtx(number_format: str) -> str:
    """As TensorRT-RTX 1.7 logs it: constants apart, `Datatype`, a layout after it."""
    return (
        "Name: to_q_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,-1,64], Strides: [1], StrideOrder: "
        f"[0], Datatype: {number_format}, Format: (Linear) Row major linear format }}], Constants: [ {{ Name: w, "
        f"Dimensions: [1,64,256], Strides: [1], StrideOrder: [0], Datatype: {number_format}, Format: (Linear) }}, "
        "{ Name: alpha, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) }], "
        "Outputs: [ { Name: y, Dimensions: [1,-1,256], Strides: [1], StrideOrder: [0], Datatype: Float }], TacticName: "
        "__myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: to_q]"
    )


def in_ten(number_format: str) -> str:
    """As TensorRT 10 logs it: the weight and Myelin's two factors are inputs, and the output is in float32."""
    return (
        f"Name: to_q_myl0_0, LayerType: gemm, Inputs: [ {{ Name: x, Dimensions: [-1,64], Format/Datatype: "
        f"{number_format} }}, {{ Name: w, Dimensions: [64,256], Format/Datatype: {number_format} }}, {{ Name: "
        "__mye34_alpha, Dimensions: [1], Format/Datatype: Float }, { Name: __mye35_beta, Dimensions: [1], "
        "Format/Datatype: Float }], Outputs: [ { Name: y, Dimensions: [-1,256], Format/Datatype: Float }], TacticName: "
        "sm80_xmma_gemm_tilesize32x32x64, StreamId: 0, Metadata: [ONNX Layer: to_q]"
    )


def in_eleven(number_format: str) -> str:
    return in_ten(number_format).replace("Format/Datatype", "DataType")


SPELLINGS = [
    pytest.param(line, word, wanted, id=f"{line.__name__}-{word}")
    for line in (in_rtx, in_ten, in_eleven)
    for word, wanted in [("BFloat16", "bf16"), ("Half", "fp16"), ("FP8", "fp8"), ("Float", "fp32"), ("FP4", "nvfp4")]
]


@pytest.mark.parametrize(("line", "word", "wanted"), SPELLINGS)
def test_a_product_has_its_operands_type_and_not_its_outputs(line, word: str, wanted: str) -> None:
    (layer,) = layers_from_log(["Layers:", line(word)])
    assert layer.is_gemm
    assert layer.number_format == wanted
    assert layer.nodes == ("to_q",)
    assert not any(256 in tensor.dims and len(tensor.dims) == 1 for tensor in layer.inputs)
    assert [tensor.dims[-1] for tensor in (*layer.inputs, *layer.constants)].count(256) == 1, "the output is no input"


CONVOLUTION = (
    "Name: conv_in, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, Dimensions: [-1,3,-1,-1], "
    "Format/Datatype: WORDS }], Outputs: [ { Name: y, Location: Device, Dimensions: [-1,32,-1,-1], Format/Datatype: "
    "WORDS }], ParameterType: Convolution, Kernel: [3,3], WEIGHTS, TacticName: TACTIC, StreamId: 0, Metadata: "
)
UNTOLD = "N/A due to dynamic shapes"


@pytest.mark.parametrize(
    ("words", "weights", "tactic", "wanted"),
    [
        ("Channel major FP16 format where channel % 8 == 0", "Groups: 1", "", "fp16"),
        ("Row major linear FP32", "Groups: 1", "", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format", "Groups: 1", "", "int8"),
        ("Half(64,1:8,...)", "Groups: 1", "", "fp16"),
        (UNTOLD, 'Weights: {"Type": "Half", "Count": 864}', "", "fp16"),
        (UNTOLD, 'Weights: {"Type": "BFloat16", "Count": 864}', "", "bf16"),
        (UNTOLD, "Groups: 1", "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize", "fp16"),
        (UNTOLD, "Groups: 1", "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc", "bf16"),
        (UNTOLD, "Groups: 1", "", ""),
    ],
)
def test_a_convolutions_type_is_taken_from_where_it_is_said(words: str, weights: str, tactic: str, wanted: str) -> None:
    line = CONVOLUTION.replace("WORDS", words).replace("WEIGHTS", weights).replace("TACTIC", tactic)
    (layer,) = layers_from_log([line])
    assert layer.is_convolution
    assert layer.number_format == wanted


def test_what_is_not_told_is_no_wrong_precision() -> None:
    line = CONVOLUTION.replace("WORDS", UNTOLD).replace("WEIGHTS", "Groups: 1").replace("TACTIC", "")
    census = _census([line], {})
    assert census.convolutions == {"untold": 1}
    assert list(shortfalls(census, precision="bf16", fused_attention=True)) == []
    assert list(remarks(census)) == ["the compiler does not tell the type of 1 convolutions"]


def test_a_quantized_product_that_is_not_told_is_not_astray() -> None:
    census = _census([in_ten(UNTOLD)], {"to_q": "fp8"})
    assert census.strays == ()
    assert census.untold == ("whether to_q is in fp8",)
    assert list(remarks(census)) == ["the compiler does not tell the type of 1 matrix products, whether to_q is in fp8"]
    assert "1 products in fp8 asked, 0 astray, 1 untold" in census.describe()


def test_a_part_of_the_graph_that_is_one_layer_is_said_to_hide_its_own() -> None:
    """As TensorRT 8.6 and 10 list what Myelin takes whole, if they are asked for names alone."""
    line = (
        "Name: {ForeignNode[a...b]}, LayerType: Myelin, Inputs: [], Outputs: [ { Name: y, Location: Device, "
        "Dimensions: [2], Format/Datatype: Row major linear FP32 }], TacticValue: 0x0000000000000000"
    )
    census = _census([line], {"to_q": "fp8"})
    assert list(shortfalls(census, precision="bf16", fused_attention=True)) == []
    assert next(remarks(census)).startswith("the compiler does not tell what 1 parts of the graph consist of, whether")


def test_a_product_in_the_wrong_format_is_astray_in_every_spelling() -> None:
    for line in (in_rtx, in_ten, in_eleven):
        assert _census([line("BFloat16")], {"to_q": "fp8"}).strays == ("to_q is in bf16, not in fp8",)


def test_operands_of_a_fusion_are_not_guessed_among_residuals() -> None:
    def fusion(*formats: str) -> Layer:
        inputs = tuple(LayerTensor(number_format=one, dims=(1, 64, 64)) for one in formats)
        return Layer(name="__myl_FcAdd_myl0_1", kind="kgen", inputs=inputs, constants=())

    assert fusion("bf16", "bf16", "bf16").number_format == "bf16"
    assert fusion("fp8", "fp8", "bf16").number_format == ""


def test_the_inspector_of_each_version() -> None:
    def one(**spelling: str) -> str:
        tensors = [{"Name": name, "Dimensions": [64, 64], **spelling} for name in "xw"]
        return json.dumps({"Layers": [{"Name": "a", "LayerType": "gemm", "Inputs": tensors}], "Bindings": ["x"]})

    for spelling in (
        {"Format/Datatype": "Row major linear FP16 format"},
        {"Format": "Linear", "Datatype": "Half"},
        {"Format": "Linear", "DataType": "Half"},
    ):
        (layer,) = layers_from_inspector(one(**spelling))
        assert layer.number_format == "fp16", spelling
    weights = {"Name": "conv", "LayerType": "CaskGemmConvolution", "Weights": {"Type": "Half", "Count": 9}}
    (layer,) = layers_from_inspector(json.dumps({"Layers": [weights]}))
    assert layer.is_convolution
    assert layer.number_format == "fp16"


def _census(lines: list[str], asked: dict[str, str]) -> Census:
    return take_census(
        layers_from_log(lines),
        attention_asked=sum(line.startswith("Name: {ForeignNode") for line in lines),
        weight_bytes=1,
        activation_bytes=1,
        io_bytes=1,
        quantized_products=asked,
    )
