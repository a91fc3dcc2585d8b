"""The autoencoder as fused operators: the numbers of torch's own, in (b, h, w, c) from end to end."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from once_per_run import OncePerRun
from torch import Tensor

from kontext_trt import Bundle
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.trace import TraceOptions, trace
from kontext_trt.export.networks.build import build_module
from kontext_trt.export.tiny import tiny_config
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.operators.catalogue import DEFINITIONS, DOMAIN
from tests.support.fused_models import Sizes, arrays, attributes, model

ATOL = 1e-5
VAE = ("vae_encoder", "vae_decoder")


def _planes(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _pixels(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _pixels(F.group_norm(_planes(x), 32, weight, bias, 1e-6))


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _pixels(F.conv2d(_planes(x), weight, bias, padding=weight.shape[2] // 2))


TORCH: dict[str, Callable[..., Tensor]] = {
    "GroupNorm": _normed,
    "GroupNormSilu": lambda *inputs: F.silu(_normed(*inputs)),
    "Convolution": _convolved,
    "ConvolutionAdd": lambda x, weight, bias, residual: _convolved(x, weight, bias) + residual,
    "ConvolutionHalving": lambda x, weight, bias: _pixels(
        F.conv2d(F.pad(_planes(x), (0, 1, 0, 1)), weight, bias, stride=2)
    ),
    "PointConvolution": _convolved,
    **dict.fromkeys(
        ("UpsampleNearest", "Upsample"),
        lambda x: _pixels(F.interpolate(_planes(x), scale_factor=2.0, mode="nearest")),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_body_computes_what_torch_does(name: str):
    definition, sizes = DEFINITIONS[name], Sizes()
    inputs = arrays(definition, sizes)
    session = ort.InferenceSession(
        model(definition, Precision.FP32, attributes(definition, sizes)), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, inputs)
    wanted = TORCH[name](*(torch.from_numpy(inputs[name]) for name in definition.inputs))
    np.testing.assert_allclose(found, wanted.numpy(), atol=ATOL)


def test_a_group_norm_keeps_small_differences_of_large_numbers():
    definition, sizes = DEFINITIONS["GroupNorm"], Sizes()
    inputs = arrays(definition, sizes)
    large = {**inputs, "x": inputs["x"] + 1024}
    session = ort.InferenceSession(
        model(definition, Precision.FP32, attributes(definition, sizes)), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(session.run(None, large)[0], session.run(None, inputs)[0], atol=2e-3)


@pytest.fixture(scope="session")
def fused_path(checkpoint_path: Path, once_per_run: OncePerRun, traced_once: None) -> Path:
    """The tiny checkpoint's bundle of fused operators. Not to be altered."""
    options = ExportOptions(operators=Operators.FUSED)
    return once_per_run.make("fused", lambda path: export_bundle(open_checkpoint(checkpoint_path), path, options))


def test_pictures_and_references_are_those_of_single_operators(bundle: Bundle, fused_path: Path, picture):
    image = np.stack([np.asarray(picture(96, 192, seed)) for seed in (0, 1)])
    found = []
    for one in (bundle, Bundle.open(fused_path)):
        executor = OnnxRuntimeCpu(one)
        reference = executor.run("vae_encoder", {"image": image})["reference"]
        decoded = executor.run("vae_decoder", {"latents": reference.reshape(2, 12, 6, -1)})
        executor.close()
        found.append((reference, decoded["image"].astype(int), decoded["mean"]))
    (single, single_image, single_mean), (fused, fused_image, fused_mean) = found
    assert single_image.std() > 10
    np.testing.assert_allclose(fused, single, atol=ATOL)
    np.testing.assert_allclose(fused_mean, single_mean, atol=ATOL)
    assert np.abs(fused_image - single_image).max() <= 1


@pytest.mark.parametrize("component", VAE)
def test_modules_compute_the_same_in_torch(component: str):
    torch.manual_seed(0)
    single, fused = (
        build_module(component, tiny_config(), operators=form) for form in (Operators.SINGLE, Operators.FUSED)
    )
    fused.load_state_dict(single.state_dict())
    x = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8) if component == VAE[0] else torch.randn(2, 3, 2, 64)
    with torch.no_grad():
        for one, other in zip(_all(single(x)), _all(fused(x)), strict=True):
            torch.testing.assert_close(other.float(), one.float(), atol=1 if one.dtype == torch.uint8 else ATOL, rtol=0)


def _all(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_the_table_says_which_components_have_fused_operators(fused_path: Path):
    bundle = Bundle.open(fused_path)
    for name in COMPONENTS:
        domains = {node.domain for node in onnx.load(bundle.open_graph(name).path, load_external_data=False).graph.node}
        expected = Operators.FUSED if name in (*VAE, "denoiser") else Operators.SINGLE
        assert bundle.graph(name).operators == expected.value
        assert (DOMAIN in domains) == (expected is Operators.FUSED)


@pytest.mark.check  # each is traced for it in bf16
@pytest.mark.parametrize("component", VAE)
def test_between_the_ends_nothing_is_turned_or_widened(component: str):
    options = TraceOptions(precision=Precision.BF16, operators=Operators.FUSED)
    graph = trace(COMPONENTS[component], tiny_config(), options).graph
    counts = Counter(node.op_type for node in graph)
    assert counts["Transpose"] == 1, "patches"
    assert not {"Conv", "GroupNormalization", "Sigmoid", "Resize", "Pad"} & set(counts)
    assert counts["Cast"] == 5, "both ends, and queries there and back"
    assert counts["GroupNorm"] == counts["Attend"] == 1
    for node in graph:
        if node.domain == DOMAIN:
            assert all(value.shape is not None and value.type is not None for value in node.outputs)
