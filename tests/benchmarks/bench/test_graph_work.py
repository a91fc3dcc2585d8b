"""The work that is counted in graphs, against closed formulas, torch's own count and hand-made graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kontext_trt import Bundle, MissingDependencyError
from kontext_trt.benchmarks.bench.graph_shapes import concrete_values, extent, whole_proto
from kontext_trt.benchmarks.bench.graph_work import GraphWork, Heavy, count_bodies, count_work
from kontext_trt.engine.bundle.graph_file import GraphFile
from kontext_trt.engine.components import COMPONENTS, ElementType, Operators, Precision
from kontext_trt.engine.errors import BundleError
from kontext_trt.engine.number_types import ONNX
from kontext_trt.export.configs import ModelConfig, TransformerConfig
from kontext_trt.export.emulate.bundle_modules import BundleGraph, load_module, read_config
from kontext_trt.export.graphs.trace import TraceOptions, model_dims, trace
from kontext_trt.export.tiny import tiny_config
from kontext_trt.export.torch_types import torch_dtype

DIMS = {"b": 2, "n": 56, "m": 48, "s": 512 + 56 + 48, "N": 3, "h": 6, "w": 8}
FULL = {"b": 1, "n": 4096, "m": 4096, "s": 8704, "N": 28, "h": 64, "w": 64}


def operations(work: GraphWork) -> float:
    return sum(one.operations for one in work.heavy)


def traced(component: str, config: ModelConfig, folder: Path, options: TraceOptions) -> GraphFile:
    """A graph whose weights lie in a file that is not there."""
    model = trace(COMPONENTS[component], config, options)
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            assert value.shape is not None
            assert value.dtype is not None
            size = prod(value.shape.numpy()) * value.dtype.itemsize
            value.const_value = ir.ExternalTensor("weights", 0, int(size), value.dtype, shape=value.shape, name=name)
    ir.save(model, folder / f"{component}.onnx")
    return GraphFile.read(folder / f"{component}.onnx")


def flux_step(config: TransformerConfig, dims: dict[str, int], *, pruned: bool = True) -> tuple[float, float]:
    """Products and attention of one step, from the paper's block diagram: a block has 12 h^2 weights a token, of
    which keys and values are 2 h^2."""
    h, channels, b, n, m, s = config.hidden, config.channels, dims["b"], dims["n"], dims["m"], dims["s"]
    text, last = s - n - m, n if pruned else s
    a_token = 12 * h * h
    double = config.num_double_blocks * (text + n + m) * a_token
    single = (config.num_single_blocks - 1) * s * a_token + last * (a_token - 2 * h * h) + s * 2 * h * h
    ends = 2 * n * channels * h
    blocks = config.num_double_blocks + config.num_single_blocks - 1
    return 2.0 * b * (double + single + ends), 4.0 * b * h * s * (blocks * s + last)


def flux_conditioner(config: TransformerConfig, dims: dict[str, int]) -> float:
    h, b, m, steps = config.hidden, dims["b"], dims["m"], dims["N"]
    text = dims["s"] - dims["n"] - m
    vectors = 12 * config.num_double_blocks + 3 * config.num_single_blocks + 2
    embedders = (steps + b) * (256 + h) * h + b * (config.pooled_width + h) * h
    tokens = b * text * config.text_width * h + b * m * config.channels * h
    return 2.0 * (embedders + steps * b * vectors * h * h + tokens)


@pytest.mark.check  # each traces a denoiser of its own
@pytest.mark.parametrize(("width", "pruned"), [("full", True), ("tiny", False)])
def test_a_step_is_what_the_closed_form_says(width: str, pruned: bool, tmp_path: Path):
    """Of full width and size, but few blocks: the rest are the same again."""
    full = TransformerConfig(num_double_blocks=1, num_single_blocks=2)
    config = ModelConfig(transformer=full) if width == "full" else tiny_config()
    dims = DIMS if width == "tiny" else FULL
    options = TraceOptions(precision=Precision.BF16, prune_last_block=pruned)
    work = count_work(traced("denoiser", config, tmp_path, options), dims).work()
    products, attention = flux_step(config.transformer, dims, pruned=pruned)
    assert work.products == {"bf16": pytest.approx(products, rel=1e-3)}
    assert work.attention == {"bf16": pytest.approx(attention, rel=1e-3)}


def test_conditioning_is_what_the_closed_form_says(bundle: Bundle):
    work = count_work(bundle.open_graph("conditioner"), DIMS).work()
    assert work.products == {"fp32": pytest.approx(flux_conditioner(read_config(bundle).transformer, DIMS), rel=1e-3)}
    assert work.attention == {}


@pytest.mark.parametrize("component", COMPONENTS)
def test_torch_counts_the_same(bundle: Bundle, component: str):
    """torch's count of what the module does, over the bundle's weights; within 0.1 %."""
    config, dims = read_config(bundle), DIMS | ({"m": 48} if component == "vae_encoder" else {})
    module = load_module(BundleGraph.read(bundle, component), config).eval()
    inputs = [
        torch.ones(
            [int(one) for one in model_dims(config).resolve(port.dims, **dims)],
            dtype=torch_dtype(port.element_type.resolve(Precision.FP32).number),
        )
        for port in COMPONENTS[component].inputs
    ]
    # torch has no count for its CPU's attention kernel; taken apart it has
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module(*inputs)
    work = count_work(bundle.open_graph(component), dims)
    assert operations(work) == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize(
    "component", ["clip", *(pytest.param(one, marks=pytest.mark.check) for one in ("t5", "denoiser"))]
)
def test_both_kinds_of_operators_count_the_same(bundle: Bundle, component: str, tmp_path: Path):
    """A mask beside the scores, a bias, and neither. Only a single operator reads those itself."""
    options = TraceOptions(precision=Precision.FP32, operators=Operators.DECOMPOSED)
    single = count_work(bundle.open_graph(component), DIMS)
    decomposed = count_work(traced(component, read_config(bundle), tmp_path, options), DIMS)
    assert decomposed.work() == single.work()
    if component == "denoiser":
        sizes = [sum(one.size_bytes for one in work.heavy) for work in (single, decomposed)]
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("recipe", [None, "fp8", "fp8-attention"])
def test_fused_operators_count_as_single_ones(
    recipe: str | None,
    bundle: Bundle,
    fused_path: Path,
    tiny_quantized: Callable[[str], Bundle],
    fused_quantized: Callable[..., Bundle],
):
    """Products and attention inside them, in their number formats, and the bytes of both; not elementwise traffic."""
    pair = (tiny_quantized(recipe), fused_quantized(recipe)) if recipe else (bundle, Bundle.open(fused_path))
    single, fused = (count_work(one.open_graph("denoiser"), DIMS) for one in pair)
    one, other = single.work(), fused.work()
    turning = 0.0
    if recipe == "fp8-attention":  # a plan turns queries and keys by products with Hadamard's matrix, kernels by sums
        dims, tokens = bundle.manifest.model.dims, DIMS["s"]
        rows = 4 * 2 * tokens - (tokens - DIMS["n"])  # queries and keys of 4 blocks, the last the target's
        turning = DIMS["b"] * rows * dims.hidden * 2 * 2 * dims.rope_width
    products = {**other.products, "fp32": other.products["fp32"] + turning}
    assert (products, other.attention, other.parameters) == (one.products, one.attention, one.parameters)
    assert set(other.products) == ({"fp32", "fp8"} if recipe else {"fp32"})
    assert set(other.attention) == {"fp8" if recipe == "fp8-attention" else "fp32"}
    heavy = [one for one in single.heavy if not (one.weight or "").startswith("hadamard")]
    assert sum(one.size_bytes for one in fused.heavy) == sum(one.size_bytes for one in heavy)
    assert {one.weight for one in fused.heavy} == {one.weight for one in heavy}
    # tensors between operators are fewer: what a kernel keeps to itself, no one writes
    sizes = [sum(kind.size_bytes for kind in work.traffic.values()) for work in (single, fused)]
    assert sizes[1] < sizes[0] / 3


def test_bodies_of_some_operators_count_beyond_the_fused_ones(fused_path: Path):
    """A gate reads three tensors and writes one; its body widens three, multiplies, adds and narrows."""
    graph = Bundle.open(fused_path).open_graph("denoiser")
    found = count_bodies(graph, DIMS, ["Gate"])
    assert found.heavy == ()
    assert found.more_bytes > 0
    heads = count_bodies(graph, DIMS, ["Heads", "Attend"])
    assert [one.is_attention for one in heads.heavy].count(True) == 2
    assert len(heads.heavy) == 2 * 3 + 2
    assert count_bodies(graph, DIMS, []).more_bytes == 0


@pytest.mark.parametrize("component", COMPONENTS)
def test_weights_and_borders_are_the_manifests(bundle: Bundle, component: str):
    work, record = count_work(bundle.open_graph(component), DIMS), bundle.graph(component)
    assert (work.parameters, work.weight_bytes) == (record.num_parameters, record.weight_bytes)
    ports = COMPONENTS[component].ports
    shapes = [bundle.manifest.model.dims.resolve(port.dims, **DIMS) for port in ports]
    sizes = [4 if port.element_type is not ElementType.UINT8 else 1 for port in ports]
    assert work.io_bytes == sum(prod(map(int, shape)) * size for shape, size in zip(shapes, sizes, strict=True))


def test_without_a_reference_there_is_nothing_of_it(bundle: Bundle):
    dims = DIMS | {"m": 0, "s": 512 + 56}
    work = count_work(bundle.open_graph("denoiser"), dims).work()
    products, attention = flux_step(read_config(bundle).transformer, dims)
    assert work.products == {"fp32": pytest.approx(products, rel=1e-3)}
    assert work.attention == {"fp32": pytest.approx(attention, rel=1e-3)}


def test_traffic_is_by_operator(bundle: Bundle):
    traffic = count_work(bundle.open_graph("denoiser"), DIMS).traffic
    tokens = DIMS["b"] * DIMS["s"] * 64 * 4
    assert traffic["Gelu"].count == 6
    assert traffic["Softmax" if "Softmax" in traffic else "Attention"].count == 4
    assert traffic["Gelu"].size_bytes == 2 * 4 * (2 * tokens + tokens + DIMS["b"] * DIMS["n"] * 64 * 4)
    assert list(traffic) == sorted(traffic, key=lambda name: -traffic[name].size_bytes)
    assert not {"Reshape", "Shape", "Constant"} & traffic.keys()


Make = Callable[..., GraphFile]


@pytest.fixture
def graph(tmp_path: Path) -> Make:
    """A graph file of nodes over float16 inputs (name = shape), and weights that are given with their types."""

    def make(nodes: list[onnx.NodeProto], output: str, weights: list[TensorProto] | None = None, **inputs) -> GraphFile:
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name, shape in inputs.items()]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT16, None)
        made = helper.make_graph(nodes, "g", ports, [result], initializer=weights or [])
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("trt", 1)]
        onnx.save(helper.make_model(made, opset_imports=opsets), tmp_path / "g.onnx")
        return GraphFile.read(tmp_path / "g.onnx")

    return make


def only(work: GraphWork) -> Heavy:
    (found,) = work.heavy
    return found


def test_attention_of_rows_with_all_heads_in_them(graph: Make):
    """ONNX Runtime's own operator takes (b, s, heads * width)."""
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], name="a", domain="com.microsoft", num_heads=4)
    found = only(count_work(graph([node], "y", q=["b", 7, 32], k=["b", 11, 32], v=["b", 11, 32]), {"b": 2}))
    assert (found.operations, found.number_format, found.is_attention) == (4.0 * 2 * 7 * 11 * 32, "fp16", True)
    assert found.size_bytes == 2 * 2 * 32 * (7 + 11 + 11 + 7)


def weight(name: str, data_type: int, shape: list[int]) -> TensorProto:
    size = int(prod(shape) * ONNX[TensorProto.DataType.Name(data_type)].bits / 8)
    return helper.make_tensor(name, data_type, shape, bytes(size), raw=True)


def test_products_of_dequantized_operands_have_the_narrow_format(graph: Make):
    """Weights and activations count as stored: FP8 a byte, NVFP4 half a byte, without its scales."""
    one = weight("s", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "s"], ["xd"], output_dtype=TensorProto.FLOAT16),
        helper.make_node("DequantizeLinear", ["w8", "s"], ["wd"], output_dtype=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["xd", "wt"], ["y"], name="p"),
    ]
    weights = [one, weight("zero", TensorProto.FLOAT8E4M3FN, []), weight("w8", TensorProto.FLOAT8E4M3FN, [64, 32])]
    found = only(count_work(graph(nodes, "y", weights, x=["b", 16, 32]), {"b": 3}))
    assert (found.number_format, found.weight, found.weight_shape) == ("fp8", "w8", (64, 32))
    assert found.operations == 2.0 * 3 * 16 * 32 * 64
    assert found.size_bytes == 3 * 16 * 32 + 64 * 32 + 2 * 3 * 16 * 64
    nodes = [
        helper.make_node("TRT_FP4DynamicQuantize", ["x", "s"], ["x4", "xs"], domain="trt"),
        helper.make_node("DequantizeLinear", ["xs", "s"], ["xb"]),
        helper.make_node("DequantizeLinear", ["x4", "xb"], ["xf"], axis=-1, block_size=16),
        helper.make_node("Cast", ["xf"], ["xd"], to=TensorProto.FLOAT16),
        helper.make_node("DequantizeLinear", ["w4", "wb"], ["wf"], axis=-1, block_size=16),
        helper.make_node("Cast", ["wf"], ["wd"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["xd", "wt"], ["y"], name="p"),
    ]
    weights = [one, weight("w4", TensorProto.FLOAT4E2M1, [64, 32]), weight("wb", TensorProto.FLOAT, [64, 2])]
    found = only(count_work(graph(nodes, "y", weights, x=["b", 16, 32]), {"b": 3}))
    assert (found.number_format, found.weight) == ("nvfp4", "w4")
    assert found.size_bytes == (3 * 16 * 32 + 64 * 32) // 2 + 2 * 3 * 16 * 64


def test_work_that_is_not_known_is_an_error(graph: Make):
    node = helper.make_node("FusedMatMul", ["x", "x"], ["y"], name="f", domain="com.microsoft")
    with pytest.raises(BundleError, match=r"g\.onnx: it is not known how much work FusedMatMul f is"):
        count_work(graph([node], "y", x=["b", 4, 4]), {"b": 1})
    packed = helper.make_node("MultiHeadAttention", ["x"], ["y"], name="a", domain="com.microsoft", num_heads=2)
    with pytest.raises(BundleError, match="a has packed queries, keys and values"):
        count_work(graph([packed], "y", x=["b", 4, 3, 4]), {"b": 1})
    integers = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.INT32),
        helper.make_node("MatMul", ["c", "c"], ["d"], name="i"),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT16),
    ]
    with pytest.raises(BundleError, match="i multiplies INT32"):
        count_work(graph(integers, "y", x=["b", 4, 4]), {"b": 1})


def test_a_value_without_a_shape_is_named(graph: Make):
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["c"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["x", "c"], ["y"], name="p"),
    ]
    with pytest.raises(BundleError, match=r"g\.onnx: the shape of \w+ \((NonZero|Cast|MatMul)\) cannot be told"):
        count_work(graph(nodes, "y", x=["b", 4]), {"b": 2})


def test_names_of_the_exporters_own_are_solved(graph: Make):
    """A stated shape may say 2*s39 where the input says 16*h."""
    node = helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0])
    more = helper.make_node("QuickGelu", ["t"], ["y"], domain="com.microsoft")
    made = graph([node, more], "y", x=["16*h", 3])
    stated = whole_proto(made)
    stated.graph.value_info.append(helper.make_tensor_value_info("t", TensorProto.FLOAT16, [3, "4*s39"]))
    stated.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT16, ["s39 + 1"]))
    values = concrete_values(replace(made, data=stated.SerializeToString()), {"h": 2})
    assert values["t"].shape == (3, 32)
    assert values["y"].shape == (3, 32)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("4*h*w", 48),
        ("n + m + 512", 530),
        ("h//2", 1),
        ("n**2 - 1", 99),
        ("q + 1", None),
        ("len(n)", None),
        ("(", None),
    ],
)
def test_expressions_are_evaluated_and_nothing_else(expression: str, value: int | None):
    assert extent(expression, {"h": 3, "w": 4, "n": 10, "m": 8}) == value


def test_without_onnx_the_command_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    graph = bundle.open_graph("clip")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="pip install onnx"):
        count_work(graph, DIMS)
