"""Layer listings, as compilers wrote them, counted."""

from __future__ import annotations

import json

import pytest

from kontext_trt.engine.plans.census import Census, shortfalls, take_census
from kontext_trt.engine.plans.layers import Layer, LayerTensor, layers_from_inspector, layers_from_log, memory_from_log


def _tensor(dims: str, kind: str) -> str:
    return f"{{ Name: x, Dimensions: [{dims}], Strides: [1], StrideOrder: [0], Datatype: {kind}, Format: (Linear) }}"


def _line(name: str, kind: str, inputs: list[str], constants: list[str]) -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {', '.join(inputs)}], Constants: [ {', '.join(constants)}], "
        f"Outputs: [ {_tensor('1,-1,256', 'Float')}], TacticName: , StreamId: 0, Metadata: [ONNX Layer: node_cat]"
    )


BF16, FP8, FP32 = (_tensor("1,-1,64", kind) for kind in ("BFloat16", "FP8", "Float"))
WEIGHT, SCALARS = _tensor("1,64,256", "BFloat16"), _tensor("1", "Float")
LOG = [
    "Total Activation Memory: 1000 bytes",
    "Total Weights Memory: 2000 bytes",
    "Layers:",
    _line("__mye1_0_myl0_0", "shape_call", [], []),
    _line("__myl_FcAdd_myl0_3", "runtime_fusion", [BF16], [WEIGHT, _tensor("1,1,256", "BFloat16")]),
    _line("node_MatMul_84+node_MatMul_52_myl0_5", "gemm", [BF16], [WEIGHT, SCALARS]),
    _line("__fc15813_myl0_4", "gemm", [BF16, BF16], [SCALARS, SCALARS]),
    _line("_gemm_mha_v2_myl0_18", "kgen", [BF16, BF16, BF16], []),
    _line("__myl_AddReshMaxrSubExpSumDiv_myl0_6", "kgen", [BF16], []),
    _line("node_conv2d_myl0_2", "correlation", [BF16], [_tensor("32,3,3,3", "BFloat16")]),
    _line("__myl_TranMove_myl0_3", "kgen", [BF16], []),
    _line("__myl_TranAddSlic_myl0_9", "kgen", [BF16], []),
]


BRANCH = _line(
    "__myl_FcAddAddCastMulAdd_myl0_420",
    "runtime_fusion",
    [
        *(_tensor(dims, "Float") for dims in ("1,1,1", "1,256,64")),
        *(_tensor(dims, "BFloat16") for dims in ("1,256,64", "1,256,16", "1,16,64")),
    ],
    [_tensor("1,1,64", "BFloat16")],
)
"""A product of two inputs, with residuals in float32 and a bias."""


def test_a_product_of_inputs_has_their_type_and_not_a_residuals() -> None:
    (layer,) = layers_from_log([BRANCH])
    assert layer.is_gemm
    assert layer.number_format == "bf16"


def census(layers: list[Layer], attention: int = 1) -> Census:
    return take_census(layers, attention_asked=attention, weight_bytes=1, activation_bytes=2, io_bytes=3)


def test_a_log_is_counted_by_kind_and_type() -> None:
    counted = census(layers_from_log(LOG))
    assert counted.layers == 9
    assert counted.gemms == {"bf16": 3}
    assert counted.attention == {"bf16": 1}
    assert counted.convolutions == {"bf16": 1}
    assert counted.copies == 1
    assert counted.describe() == "3 GEMMs bf16, 1 convolutions bf16, 1 of 1 attention fused, 1 copies"
    assert memory_from_log(LOG) == {"weights": 2000, "activation": 1000}


def test_unfused_attention_shows_as_softmax() -> None:
    assert [layer.is_softmax for layer in layers_from_log(LOG)].count(True) == 1


@pytest.mark.parametrize(
    ("inputs", "constants", "number_format"),
    [
        ([("bf16", (1, 8, 64))], [("bf16", (1, 64, 256))], "bf16"),
        ([("fp8", (1, 8, 64))], [("fp8", (1, 64, 256)), ("bf16", (1, 1, 256))], "fp8"),
        # a residual in fp32 comes before the operand, whose last dimension is the weight's second to last
        ([("fp32", (1, 8, 256)), ("fp8", (1, 8, 64))], [("fp8", (1, 64, 256))], "fp8"),
        ([("bf16", (1, 8, 64))], [("nvfp4", (1, 64, 256))], "bf16"),
        # or is as wide as the operand, where a model has as many channels as features
        ([("fp32", (1, 8, 64)), ("bf16", (1, 8, 64))], [("bf16", (1, 64, 64))], "bf16"),
        ([("fp16", (8, 8)), ("fp32", (8, 8))], [("fp32", (1,))], "fp32"),
    ],
)
def test_a_product_is_as_wide_as_its_wider_operand(
    inputs: list[tuple[str, tuple[int, ...]]], constants: list[tuple[str, tuple[int, ...]]], number_format: str
) -> None:
    layer = Layer(
        name="gemm",
        kind="gemm",
        inputs=tuple(LayerTensor(number_format=kind, dims=dims) for kind, dims in inputs),
        constants=tuple(LayerTensor(number_format=kind, dims=dims) for kind, dims in constants),
    )
    assert layer.number_format == number_format


def test_an_inspectors_json_is_read_in_both_spellings() -> None:
    old = {"Name": "a", "LayerType": "gemm", "Inputs": [
        {"Name": "x", "Dimensions": [1, 64], "Format/Datatype": "Row major linear FP16 format"}]}  # fmt: skip
    new = {"Name": "_gemm_mha_v2_b", "LayerType": "kgen", "Inputs": [
        {"Name": "x", "Dimensions": [1, 64], "Format": "Linear", "Datatype": "BFloat16"}]}  # fmt: skip
    layers = layers_from_inspector(json.dumps({"Layers": [old, new, "a name alone"]}))
    counted = census(layers)
    assert counted.gemms == {"fp16": 1}
    assert counted.attention == {"bf16": 1}


def _shortfalls(counted: Census, precision: str, fused: bool = True) -> list[str]:
    return list(shortfalls(counted, precision=precision, fused_attention=fused))


def test_an_engine_as_asked_has_no_shortfalls() -> None:
    assert _shortfalls(census(layers_from_log(LOG)), "bf16") == []
    assert _shortfalls(census(layers_from_log(LOG)), "fp32") == []


def test_products_wider_than_asked_are_counted() -> None:
    wide = [*LOG, _line("node_MatMul_9_myl0_9", "gemm", [FP32], [_tensor("1,64,9", "Float")])]
    assert _shortfalls(census(layers_from_log(wide)), "bf16") == [
        "1 of 4 matrix products are wider than bf16: 1 in fp32"
    ]


def _quantized_line(nodes: list[str], operand: str = FP8) -> str:
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    line = _line("+".join(nodes) + "_myl0_9", "gemm", [operand], [_tensor("1,64,256", "FP8")])
    return line.replace("[ONNX Layer: node_cat]", metadata)


def test_each_product_must_run_in_the_format_that_its_node_asks_for() -> None:
    lines = [*LOG, _quantized_line(["to_q", "to_k"]), _quantized_line(["to_out"])]
    wanted = {"to_q": "fp8", "to_k": "fp8", "to_out": "fp8"}
    counted = _census_of(lines, wanted)
    assert counted.strays == ()
    assert counted.products_asked == {"fp8": 3}, "products that one kernel does together are still counted"
    assert _shortfalls(counted, "bf16") == []
    assert "3 products in fp8 asked, 0 astray" in counted.describe()


def test_what_ran_otherwise_is_named() -> None:
    lines = [*LOG, _quantized_line(["to_q"], operand=BF16), _quantized_line(["extra"])]
    counted = _census_of(lines, {"to_q": "fp8", "gone": "nvfp4"})
    assert counted.strays == (
        "to_q is in bf16, not in fp8",
        "gone is in no kernel that is listed, not in nvfp4",
        "extra_myl0_9 is in fp8, which nothing asked for",
    )
    assert _shortfalls(counted, "bf16")[0].startswith("3 matrix products are astray: to_q is in bf16, not in fp8, gone")


def _census_of(lines: list[str], wanted: dict[str, str]) -> Census:
    return take_census(
        layers_from_log(lines),
        attention_asked=1,
        weight_bytes=1,
        activation_bytes=2,
        io_bytes=3,
        quantized_products=wanted,
    )


def test_attention_without_a_kernel_counts_only_where_it_must_have_one() -> None:
    counted = census(layers_from_log(LOG), attention=3)
    assert _shortfalls(counted, "bf16") == ["2 of 3 attention layers have no dedicated kernel"]
    assert _shortfalls(counted, "bf16", fused=False) == []


def test_layer_names_may_hold_line_breaks() -> None:
    """TensorRT's inspector writes the names of fused layers with raw line breaks in its JSON."""
    (layer,) = layers_from_inspector('{"Layers": [{"Name": "conv\nadd", "LayerType": "Convolution"}]}')
    assert layer.name == "conv\nadd"
