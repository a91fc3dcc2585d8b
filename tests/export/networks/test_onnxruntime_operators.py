"""Graphs of ONNX Runtime's own operators: the same numbers as standard ones, and nothing else takes them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from plain_steps import plain_step

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.builder.preflight import check_operators
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.engine.errors import BuildError, QuantizationError
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.configs import ModelConfig, TransformerConfig
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.graphs.trace import TraceOptions, trace
from kontext_trt.export.networks import onnxruntime_operators as ort
from kontext_trt.export.networks.build import build_module
from kontext_trt.export.quantize.quantize_bundle import check_recipe
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.flow.rope import rope_tables

ATOL = 1e-5
SMALL = ModelConfig(
    transformer=TransformerConfig(
        num_double_blocks=1, num_single_blocks=2, num_heads=2, head_width=16, text_width=32, pooled_width=32,
        rope_axes=(4, 6, 6),
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def own_bundle(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    options = ExportOptions(operators=Operators.ONNXRUNTIME)
    return export_bundle(open_checkpoint(checkpoint_path), tmp_path_factory.mktemp("own") / "bundle", options)


@pytest.fixture(scope="module")
def own_kontext(own_bundle: Bundle) -> Iterator[Kontext]:
    with Kontext.open(own_bundle) as opened:
        yield opened


def step(model, target: tuple[int, int], reference: tuple[int, int] | None, batch: int) -> dict[str, np.ndarray]:
    """Random inputs of the denoiser, each picture with a modulation of its own."""
    draw, dims = np.random.default_rng(0), model.dims
    tokens = target[0] * target[1]
    extra = 0 if reference is None else reference[0] * reference[1]
    references = () if reference is None else (reference,)
    cos, sin = rope_tables(dims.text_length, target, references, model.rope_axes, model.rope_theta)
    random = {
        name: draw.standard_normal(shape).astype(np.float32)
        for name, shape in {
            "latents": (batch, tokens, dims.channels),
            "text_tokens": (batch, dims.text_length, dims.hidden),
            "reference_tokens": (batch, extra, dims.hidden),
            "modulation": (batch, dims.vectors, dims.hidden),
        }.items()
    }
    plain = plain_step(random["latents"])
    return {**random, "cos": cos, "sin": sin, "step_size": np.array([-0.4], np.float32), **plain}


@pytest.mark.check  # a denoiser is traced for it
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("target", "reference"), [((4, 6), (5, 3)), ((6, 4), None)])
def test_a_step_is_that_of_standard_operators(bundle: Bundle, own_bundle: Bundle, target, reference, batch: int):
    inputs = step(bundle.manifest.model, target, reference, batch)
    results = []
    for one in (bundle, own_bundle):
        executor = OnnxRuntimeCpu(one)
        results.append(executor.run("denoiser", inputs)["next_latents"])
        executor.close()
    assert np.abs(results[0] - inputs["latents"]).std() > 0.1
    np.testing.assert_allclose(results[1], results[0], atol=ATOL)


@pytest.mark.check  # a denoiser is traced for it
def test_a_picture_is_that_of_standard_operators(kontext: Kontext, own_kontext: Kontext, picture):
    one, two = (session.edit(picture(96, 192), "x", steps=3, seed=0) for session in (kontext, own_kontext))
    np.testing.assert_allclose(one.outputs[0].latents, two.outputs[0].latents, atol=2 * ATOL)


def test_modules_compute_the_same_in_torch():
    torch.manual_seed(0)
    standard, own = (
        build_module("denoiser", SMALL, operators=form) for form in (Operators.SINGLE, Operators.ONNXRUNTIME)
    )
    own.load_state_dict(standard.state_dict())
    hidden, vectors = SMALL.transformer.hidden, 12 + 2 * 3 + 2
    angles = torch.randn(8 + 6 + 4, SMALL.transformer.head_width // 2)
    inputs = (
        torch.randn(2, 6, 64), torch.randn(2, 8, hidden), torch.randn(2, 4, hidden), torch.randn(2, vectors, hidden),
        angles.cos(), angles.sin(), torch.tensor([-0.4]),
    )  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(own(*inputs), standard(*inputs), atol=ATOL, rtol=0)


@pytest.mark.check  # a denoiser is traced for it
def test_only_the_denoiser_differs(bundle: Bundle, own_bundle: Bundle):
    for name in COMPONENTS:
        same = bundle.open_graph(name).path.read_bytes() == own_bundle.open_graph(name).path.read_bytes()
        assert same == (name != "denoiser")
        expected = Operators.SINGLE if same else Operators.ONNXRUNTIME
        assert own_bundle.graph(name).operators == expected.value


@pytest.mark.check  # a denoiser is traced for it
def test_operators_of_the_denoiser(own_bundle: Bundle):
    """In the tiny model 2 double and 2 single blocks: 6 norms for a double block, 2 for a single one."""
    nodes = onnx.load(own_bundle.open_graph("denoiser").path, load_external_data=False).graph.node
    own = Counter(node.op_type for node in nodes if node.domain == ort.DOMAIN)
    assert own == {"MultiHeadAttention": 4, "SkipSimplifiedLayerNormalization": 12, "FastGelu": 6}
    counts = Counter(node.op_type for node in nodes)
    assert counts["RotaryEmbedding"] == 8
    assert not {"Attention", "RMSNormalization", "Gelu", "Softmax", "Gemm"} & set(counts)
    for node in nodes:
        if node.op_type == "Transpose":
            assert node.input[0].endswith(".weight"), "activations are never transposed"


@pytest.mark.check
def test_in_bf16_nothing_is_widened_between_the_ends():
    options = TraceOptions(precision=Precision.BF16, operators=Operators.ONNXRUNTIME)
    counts = Counter(node.op_type for node in trace(COMPONENTS["denoiser"], SMALL, options).graph)
    assert counts["BiasGelu"] == 4
    assert not counts["FastGelu"]
    assert counts["Cast"] == 6, "latents, velocity, two rotary tables and their rows for the target"


def test_erf_stands_for_tanh_within_the_rounding_of_bf16():
    x = torch.linspace(-6, 6, 10_001).bfloat16().float()
    by_tanh = torch.nn.functional.gelu(x, approximate="tanh")
    error = (torch.nn.functional.gelu(x) - by_tanh).abs()
    assert error.max() < 5e-4
    rounding = (by_tanh.bfloat16().float() - by_tanh).abs()
    assert error.square().mean() < 0.1 * rounding.square().mean()
    own = ort.bias_gelu(x.bfloat16(), torch.zeros(1, dtype=torch.bfloat16))
    torch.testing.assert_close(own.float(), by_tanh, atol=5e-4, rtol=2**-7)


@pytest.fixture
def called_own(bundle: Bundle) -> Bundle:
    """A bundle whose manifest says of the denoiser what an export with such operators writes there."""
    record = replace(bundle.graph("denoiser"), operators=Operators.ONNXRUNTIME.value)
    graphs = {**bundle.manifest.graphs, "denoiser": record}
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))


def test_building_is_refused(called_own: Bundle):
    check_operators(called_own, ["clip", "t5"])
    with pytest.raises(
        BuildError, match=r"the denoiser of .* has operators of ONNX Runtime's own.* --operators single"
    ):
        check_operators(called_own, ["clip", "denoiser"])


def test_quantizing_is_refused(called_own: Bundle):
    with pytest.raises(QuantizationError, match=r"the denoiser of .* has operators of ONNX Runtime's own"):
        check_recipe(called_own, make_recipe("fp8"))
